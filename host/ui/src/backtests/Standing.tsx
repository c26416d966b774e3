import type { BacktestInfo } from '../api/model';
import { percent } from '../format/units';
import { Chip } from '../parts/parts';

/** How far a backtest is, and whether it reached its bars. */
export function Standing({ info }: { info: BacktestInfo }) {
  switch (info.state) {
    case 'running':
      return <Chip tone="active">{info.of > 0 ? `Running, ${percent(info.done / info.of)}` : 'Running'}</Chip>;
    case 'failed':
      return <Chip tone="critical">Failed</Chip>;
    case 'stopped':
      return <Chip tone="idle">Stopped</Chip>;
    case 'done':
      return info.short.length > 0 ? <Chip tone="high">Below its bars</Chip> : <Chip tone="ok">Done</Chip>;
  }
}
