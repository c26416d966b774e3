/** One step of the story: the sentence that matters, and the details for who wants them. */
import { UnstyledButton } from '@mantine/core';
import { useId, useState } from 'react';
import { Link } from 'react-router';
import type { Artifact, Evidence, IncidentDetail } from '../api/model';
import type { StoryStep } from '../domain/story';
import { KINDS, metricName, ROLES, STATUSES } from '../domain/words';
import { duration } from '../format/time';
import { At, Chip, Fact, Facts, Flags, Hash } from '../parts/parts';
import { Icon } from '../parts/Icon';
import { Detail } from './Detail';
import css from './Story.module.css';

export function StoryStepView({ step, detail }: { step: StoryStep; detail: IncidentDetail }) {
  const [open, setOpen] = useState(false);
  const body = useId();
  const { artifact } = step;
  const { title, asks } = KINDS[step.kind];
  const shown = step.kind === 'execution_result' ? (artifact?.body ?? running(detail)) : (artifact?.body ?? null);
  return (
    <li className={css.step} data-standing={step.standing} data-tone={step.tone} data-testid={`step-${step.kind}`}>
      <span className={css.marker} aria-hidden="true">
        {step.standing === 'done' ? <Icon name={MARK[step.tone] ?? 'check'} size={14} /> : step.number}
      </span>
      <div className={css.card}>
        <header className={css.head}>
          <h2>{title}</h2>
          <span className={css.asks}>{asks}</span>
          <span className={css.meta}>
            {artifact && <Flags flags={artifact.flags} />}
            {artifact && step.standing === 'done' && artifact.status !== 'complete' && artifact.status !== 'pending' && (
              <Chip tone={STATUSES[artifact.status].tone}>{STATUSES[artifact.status].word}</Chip>
            )}
            {step.standing === 'here' && <Chip tone={step.tone}>{step.tone === 'elevated' ? 'Waits for approval' : 'Now'}</Chip>}
            {artifact && <At time={artifact.at} />}
          </span>
        </header>
        <p className={css.sentence}>{step.sentence}</p>
        {shown && <Detail body={shown} detail={detail} />}
        {artifact && (
          <>
            <UnstyledButton className={css.more} aria-expanded={open} aria-controls={body} onClick={() => setOpen(!open)}>
              <Icon name="chevron" size={13} /> Provenance and evidence
            </UnstyledButton>
            <div id={body} hidden={!open}>
              {open && <Provenance artifact={artifact} />}
            </div>
          </>
        )}
      </div>
    </li>
  );
}

const MARK: Partial<Record<StoryStep['tone'], 'check' | 'cross' | 'warn'>> = { high: 'cross', critical: 'warn' };

/** While it runs there is no artifact yet, but the steps so far are known. */
function running(detail: IncidentDetail): Artifact['body'] | null {
  if (detail.steps.length === 0) return null;
  return { kind: 'execution_result', steps: detail.steps, approvals: detail.approvals, summary: '' };
}

function Provenance({ artifact }: { artifact: Artifact }) {
  return (
    <div className={css.provenance}>
      <Facts>
        <Fact name="Artifact">
          <span className="mono">{artifact.id}</span>, schema {artifact.schema_version}
        </Fact>
        <Fact name="Made by">
          {ROLES[artifact.producer]}, for the {ROLES[artifact.consumer]}, <At time={artifact.at} />
        </Fact>
        <Fact name="Status">{STATUSES[artifact.status].word}</Fact>
        <Fact name="Made from">{artifact.parents.length === 0 ? 'nothing before it' : <span className="mono">{artifact.parents.join(', ')}</span>}</Fact>
        <Fact name="Hash">
          <Hash value={artifact.hash} what="artifact hash" />
        </Fact>
        <Fact name="Hash before">{artifact.previous ? <Hash value={artifact.previous} what="previous hash" /> : 'none: it is the first'}</Fact>
        <Fact name="Evidence">
          {artifact.evidence.length === 0 ? (
            'none'
          ) : (
            <ul className={css.evidence}>
              {artifact.evidence.map((evidence, i) => (
                <li key={i}>
                  <EvidenceLine evidence={evidence} />
                </li>
              ))}
            </ul>
          )}
        </Fact>
      </Facts>
    </div>
  );
}

function EvidenceLine({ evidence }: { evidence: Evidence }) {
  if ('series' in evidence) {
    const { subject, metric, from, to } = evidence.series;
    return (
      <>
        {metricName(metric)} of {subject.id}, {duration(to - from)} from <At time={from} />
      </>
    );
  }
  if ('decision' in evidence) {
    return (
      <>
        <Link to={`/decisions/${encodeURIComponent(evidence.decision.id)}`}>Decision {evidence.decision.id}</Link> of component{' '}
        <Hash value={evidence.decision.component} what="component digest" />
      </>
    );
  }
  if ('journal' in evidence) {
    return (
      <>
        Journal of {evidence.journal.node}, position {evidence.journal.position}
      </>
    );
  }
  return (
    <>
      Snapshot manifest <Hash value={evidence.manifest.digest} what="manifest digest" />
    </>
  );
}
