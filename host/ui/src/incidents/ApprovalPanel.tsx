/**
 * The decision: all that an approver ought to know before saying yes, on one panel. What is approved is exactly this
 * hash; the host checks every word again and has the last one.
 */
import { Button, Checkbox, Textarea } from '@mantine/core';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useRef, useState } from 'react';
import { api } from '../api/client';
import { useNow } from '../api/clock';
import type { IncidentDetail, PlanDetail, Step } from '../api/model';
import { keys, useBreakGlass, usePlan, useVerbs } from '../api/queries';
import { usePerson } from '../app/session';
import { isOpen } from '../domain/governance';
import { conditionText, given, mayDecide, undoing } from '../domain/story';
import { CLASSES, DRY_RUNS, rankName, targetOf, valueText, verb } from '../domain/words';
import { age, countdown, duration } from '../format/time';
import { count, percent } from '../format/units';
import { At, Chip, Fact, Facts, Failure, Flags, Hash, Hint, Note, Panel, Skeleton } from '../parts/parts';
import { Icon } from '../parts/Icon';
import { Word } from '../parts/Word';
import css from './Approval.module.css';

/** Evidence older than this is said to be old. */
const OLD_MS = 15_000;

export function ApprovalPanel({ hash, detail }: { hash: string; detail: IncidentDetail }) {
  const query = usePlan(hash);
  if (!query.data) {
    return query.error ? <Failure error={query.error} lead="The plan could not be read" /> : <Skeleton height={480} />;
  }
  return <Plan plan={query.data} detail={detail} />;
}

function Plan({ plan, detail }: { plan: PlanDetail; detail: IncidentDetail }) {
  return (
    <Panel
      label="Plan and approval"
      title={plan.waiting ? 'Approve this plan?' : 'The plan'}
      aside={plan.waiting && plan.approve_by ? <Expiry at={plan.approve_by} /> : null}
    >
      <div className={css.body} data-testid="approval">
        <Flags flags={{ ...detail.flags, dry_run: plan.plan.dry_run || detail.flags.dry_run }} />
        {plan.proposal && <p className={css.title}>{plan.proposal.title}</p>}
        <Steps steps={plan.plan.steps} dry={plan.plan.dry_run} />
        <Facts>
          <Fact name="Class">
            <Hint text={CLASSES[plan.plan.class].means}>
              <span tabIndex={0}>
                <Chip tone={CLASSES[plan.plan.class].tone}>{CLASSES[plan.plan.class].word}</Chip>
              </span>
            </Hint>
          </Fact>
          <Fact name="Blast radius">
            <Blast plan={plan} />
          </Fact>
          {plan.waiting && (
            <Fact name="Evidence">
              <EvidenceAge plan={plan} />
            </Fact>
          )}
          <Fact name="Success">
            {plan.plan.success.length === 0
              ? plan.plan.dry_run
                ? 'nothing to verify: a dry run changes nothing'
                : 'no condition was given'
              : plan.plan.success.map((condition) => conditionText(condition)).join('; ')}
            {plan.plan.success.length > 0 && <> for {duration(plan.plan.watch_ms)} without a break</>}
          </Fact>
        </Facts>
        {plan.reasons.length > 0 && (
          <div>
            <h3 className={css.small}>What the gates said</h3>
            <ul className={css.reasons}>
              {plan.reasons.map((reason, i) => (
                <li key={i}>
                  {reason.text} <code>{reason.code}</code>
                </li>
              ))}
            </ul>
          </div>
        )}
        <div>
          <h3 className={css.small}>Plan hash: an approval binds exactly this</h3>
          <Hash value={plan.hash} what="plan hash" full />
        </div>
      </div>
      {plan.demand && <Decide plan={plan} />}
      {detail.incident.phase === 'executing' && <CallOff plan={plan} />}
    </Panel>
  );
}

/** While it runs: the word that has it given up and undone. The host says if it is too late. */
function CallOff({ plan }: { plan: PlanDetail }) {
  const { suffices } = usePerson();
  if (!suffices('operator')) return null;
  return (
    <div data-testid="call-off">
      <Word
        label="Stop it: what was done is undone"
        button="Call off"
        send={(comment) => api.callOff(plan.hash, comment)}
        changes={keys.incidents}
        lead="Not called off"
      />
    </div>
  );
}

function Expiry({ at }: { at: number }) {
  const now = useNow();
  const left = at - now;
  return (
    <Hint text={<>Approve before <At time={at} />. After that nothing is done, and the incident closes as expired.</>}>
      <span className={css.expiry} data-soon={left < 60_000 || undefined} tabIndex={0} data-testid="expiry">
        {left > 0 ? <>expires in {countdown(at, now)}</> : 'expired'}
      </span>
    </Hint>
  );
}

function Steps({ steps, dry }: { steps: Step[]; dry: boolean }) {
  const catalogue = useVerbs();
  return (
    <ol className={css.steps}>
      {steps.map((step, i) => {
        const words = verb(step.verb);
        const undo = undoing(step);
        const worth = dry ? catalogue.data?.find((definition) => definition.name === step.verb)?.dry_run : undefined;
        const settings = Object.entries(step.arguments).filter(([name]) => name !== 'checkpoint-step');
        return (
          <li key={i}>
            <span className={css.number}>{i + 1}</span>
            <div>
              <div className={css.stepHead}>
                <b>{words.title}</b>
                <span>on {step.node}</span>
                <code>{step.verb}</code>
                {worth && (
                  <Hint text={DRY_RUNS[worth].means}>
                    <span tabIndex={0} data-testid="dry-run-worth">
                      <Chip tone={DRY_RUNS[worth].tone}>{DRY_RUNS[worth].word}</Chip>
                    </span>
                  </Hint>
                )}
              </div>
              <p>
                {words.does} <span className={css.dim}>{targetOf(step.target)}</span>
              </p>
              {settings.length > 0 && (
                <p className={css.dim}>{settings.map(([name, value]) => `${name} ${valueText(value)}`).join(', ')}</p>
              )}
              {step.preconditions.length > 0 && (
                <p className={css.dim}>Only if {step.preconditions.map((condition) => conditionText(condition, step.target)).join('; ')}</p>
              )}
              <p className={css.undo} data-impossible={!undo.possible || undefined}>
                <Icon name={undo.possible ? 'undo' : 'lock'} size={12} />
                {step.compensation ? `If a later step fails: ${undo.text}` : undo.text}
                {step.on_failure === 'stop' && ' If it fails, all is left as it is and a person is called.'}
              </p>
            </div>
          </li>
        );
      })}
    </ol>
  );
}

function Blast({ plan }: { plan: PlanDetail }) {
  const { nodes, gpus, workloads } = plan.blast ?? plan.plan.blast;
  const parts = [count(nodes, 'node'), count(workloads, 'workload')];
  if (gpus > 0) parts.push(count(gpus, 'GPU'));
  return (
    <>
      {parts.join(', ')}
      {plan.blast && <span className={css.dim}> ({percent(plan.blast.fleet_percent / 100)} of the fleet)</span>}
    </>
  );
}

function EvidenceAge({ plan }: { plan: PlanDetail }) {
  const now = useNow();
  if (!plan.newest_evidence_at) return <span className={css.old}>nothing was sampled: look before you approve</span>;
  const old = now - plan.newest_evidence_at > OLD_MS;
  return (
    <span className={old && plan.waiting ? css.old : undefined} data-testid="evidence-age">
      newest sample <span className="num">{age(plan.newest_evidence_at, now)}</span>
      {old && plan.waiting && ': it may not be so any more'}
    </span>
  );
}

function Decide({ plan }: { plan: PlanDetail }) {
  const { session, suffices, nameOf } = usePerson();
  const now = useNow();
  const client = useQueryClient();
  const glasses = useBreakGlass();
  const leave = glasses.data?.find((glass) => glass.principal === session.principal && isOpen(glass, now));
  const [alone, setAlone] = useState(false);
  const [comment, setComment] = useState('');
  const underLeave = alone && leave !== undefined;
  // Set on the first click and never by rendering, so that a second click within the same frame finds it.
  const sent = useRef<string>(undefined);
  const decide = useMutation({
    mutationFn: (deed: 'approve' | 'deny') => deed === 'approve' ? api.approve(plan.hash, comment.trim() || null, underLeave) : api.deny(plan.hash, comment.trim() || null),
    onSettled: (_, error) => {
      if (error) sent.current = undefined;
      void client.invalidateQueries({ queryKey: keys.plan(plan.hash) });
      void client.invalidateQueries({ queryKey: keys.incidents });
      void client.invalidateQueries({ queryKey: keys.status });
    },
  });
  const once = (deed: 'approve' | 'deny') => {
    if (sent.current === plan.hash) return;
    sent.current = plan.hash;
    decide.mutate(deed);
  };
  const demand = plan.demand;
  if (!demand) return null;
  const may = mayDecide(plan, { principal: session.principal, suffices }, now);
  const role = rankName(demand.role);
  const needed = count(demand.approvers, 'approval');
  const word = `${needed} by ${/^[aeiou]/i.test(role) ? 'an' : 'a'} ${role} or above`;
  const commentDue = demand.comment || underLeave;
  const missingComment = commentDue && comment.trim() === '';
  const busy = decide.isPending || decide.isSuccess;
  if (may === 'not-waiting' && !decide.error) {
    return plan.approvals.length > 0 ? (
      <footer className={css.decide}>
        {plan.approvals.map((approval) => (
          <p key={approval.by} className={css.given}>
            <Icon name={approval.approved ? 'check' : 'cross'} size={14} /> {approval.approved ? 'Approved' : 'Denied'} by {nameOf(approval.by)},{' '}
            {rankName(approval.rank)}, <At time={approval.at} />
            {approval.comment && <> “{approval.comment}”</>}
          </p>
        ))}
      </footer>
    ) : null;
  }
  return (
    <footer className={`${css.decide} ${css.open}`}>
      <p className={css.need} data-testid="demand">
        Needs <b>{word}</b>
        {given(plan) > 0 && <>, {given(plan)} given</>}. Once begun, no further step starts after {duration(demand.execute_within_ms)}.
      </p>
      {plan.approvals.map((approval) => (
        <p key={approval.by} className={css.given}>
          <Icon name={approval.approved ? 'check' : 'cross'} size={14} /> {nameOf(approval.by)}, {rankName(approval.rank)}, <At time={approval.at} />
          {approval.comment && <> “{approval.comment}”</>}
        </p>
      ))}
      {may === 'rank' && (
        <Note tone="elevated" title="You can look, not decide.">
          You are {rankName(session.rank)}; this plan asks for {role} or above.
        </Note>
      )}
      {may === 'already' && (
        <Note tone="active" title="You have approved it.">
          It waits for another person: nobody counts twice.
        </Note>
      )}
      {may === 'expired' && <Note tone="elevated" title="The time to approve is over.">Nothing will be done.</Note>}
      {may === 'can' && (
        <>
          <Textarea
            label={demand.comment ? 'Why (this plan asks for it)' : commentDue ? 'Why (break-glass asks for it)' : 'Why (goes into the audit)'}
            required={commentDue}
            withAsterisk={commentDue}
            value={comment}
            onChange={(event) => setComment(event.currentTarget.value)}
            autosize={false}
            rows={2}
            maxLength={2000}
            disabled={busy}
          />
          {leave && (
            <Checkbox
              label="Under my break-glass: this approval alone is enough"
              description="Told to everybody, and reviewed by somebody else afterwards."
              checked={alone}
              onChange={(event) => setAlone(event.currentTarget.checked)}
              disabled={busy}
              data-testid="break-glass"
            />
          )}
          <div className={css.buttons}>
            <Button
              size="md"
              onClick={() => once('approve')}
              disabled={busy || missingComment}
              loading={busy && decide.variables === 'approve'}
              leftSection={<Icon name="check" />}
              data-testid="approve"
            >
              {plan.plan.dry_run ? 'Approve the dry run' : 'Approve'}
            </Button>
            <Button
              size="md"
              variant="default"
              onClick={() => once('deny')}
              disabled={busy || missingComment}
              loading={busy && decide.variables === 'deny'}
              leftSection={<Icon name="cross" />}
            >
              Deny
            </Button>
          </div>
        </>
      )}
      <div aria-live="polite">
        {decide.error && <Failure error={decide.error} lead={decide.variables === 'deny' ? 'Not denied' : 'Not approved'} />}
      </div>
    </footer>
  );
}
