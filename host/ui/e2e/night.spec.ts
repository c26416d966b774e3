/**
 * The first night, as a person at the page sees it: sign in, watch, a spot reclaim is played, the plan is approved by a
 * click, the workload goes on elsewhere. On the real fleet, with the checkpoint and restore that this machine has.
 */
import AxeBuilder from '@axe-core/playwright';
import { expect, test, type BrowserContext, type Page } from '@playwright/test';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { Fleet } from './fleet.ts';

test.describe.configure({ mode: 'serial' });

const STEPS = [
  'observation_summary',
  'anomaly_finding',
  'root_cause_hypothesis',
  'remediation_proposal',
  'execution_plan',
  'execution_result',
  'verification_result',
  'incident_report',
];

let fleet: Fleet;
let context: BrowserContext;
let page: Page;
let incidentPath = '';
/** What a page must never do: ask elsewhere, break the content security policy, throw. */
const forbidden: string[] = [];

function guard(watched: Page) {
  watched.on('request', (request) => {
    const { origin, protocol } = new URL(request.url());
    if (protocol.startsWith('http') && origin !== fleet.url) forbidden.push(`asked ${request.url()}`);
  });
  watched.on('console', (message) => {
    if (/content security policy/i.test(message.text())) forbidden.push(message.text());
  });
  watched.on('pageerror', (error) => forbidden.push(`threw ${error.message}`));
}

async function signIn(to: Page, token: string) {
  await to.goto(fleet.url);
  await to.getByLabel('Token', { exact: true }).fill(token);
  await to.getByRole('button', { name: 'Sign in' }).click();
  await expect(to.getByTestId('connection')).toHaveText(/Live/);
}

async function accessible(of: Page) {
  const { violations } = await new AxeBuilder({ page: of }).analyze();
  expect(violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.target.join(' ')).join(', ')}`)).toEqual([]);
}

/** A picture of the whole page in both schemes, when asked for by UPDATE_SCREENSHOTS=1. */
async function picture(of: Page, name: string) {
  if (process.env['UPDATE_SCREENSHOTS'] !== '1') return;
  const folder = path.resolve(import.meta.dirname, '../../../docs/screenshots');
  await mkdir(folder, { recursive: true });
  for (const colorScheme of ['light', 'dark'] as const) {
    await of.emulateMedia({ colorScheme });
    // As high as the page, so that what sticks to the window's edge lies where it belongs.
    const height = await of.evaluate(() => document.documentElement.scrollHeight);
    await of.setViewportSize({ width: 1440, height: Math.max(900, height) });
    // Charts are drawn anew in the other colours.
    await of.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    await of.screenshot({ path: path.join(folder, `${name}-${colorScheme}.png`), animations: 'disabled' });
  }
  await of.emulateMedia({ colorScheme: 'light' });
  await of.setViewportSize({ width: 1440, height: 900 });
}

async function progress(): Promise<number> {
  return Number(await page.getByTestId('workload-demo-counter').getAttribute('data-progress'));
}

test.beforeAll(async ({ browser }) => {
  fleet = await Fleet.start();
  // Without motion: colours on their way from one scheme to the other are nobody's colours.
  context = await browser.newContext({ viewport: { width: 1440, height: 900 }, colorScheme: 'light', reducedMotion: 'reduce' });
  page = await context.newPage();
  guard(page);
});

test.afterEach(async () => {
  const info = test.info();
  if (info.status !== info.expectedStatus) await info.attach('agents', { body: await fleet.logs(), contentType: 'text/plain' });
});

test.afterAll(async () => {
  await context?.close();
  await fleet?.stop();
});

test('a wrong token is refused in words, the right one signs in', async () => {
  await page.goto(fleet.url);
  await page.getByLabel('Token', { exact: true }).fill('not-a-token');
  await page.getByRole('button', { name: 'Sign in' }).click();
  await expect(page.getByRole('alert')).toContainText('AE0002');
  await accessible(page);
  await page.getByLabel('Token', { exact: true }).fill('');
  await picture(page, 'sign-in');
  await signIn(page, fleet.token);
  await expect(page.getByTestId('me')).toContainText('Admin');
});

test('live telemetry of both nodes is there within 10 seconds of the start', async () => {
  for (const node of ['node-a', 'node-b']) {
    const card = page.getByTestId(`node-${node}`);
    await expect(card).toHaveAttribute('data-live', 'true', { timeout: Math.max(1, fleet.started + 10_000 - Date.now()) });
    await expect(card.getByTestId('chart-system.cpu.utilization')).toHaveAccessibleName(/CPU: \d/, {
      timeout: Math.max(1, fleet.started + 10_000 - Date.now()),
    });
  }
  await expect(page.locator('.uplot').first()).toBeVisible();
  const before = await expect.poll(progress).toBeGreaterThan(0).then(progress);
  await expect.poll(progress).toBeGreaterThan(before);
});

test('what a node cannot do says why', async () => {
  const card = page.getByTestId('node-node-a');
  await card.getByRole('button', { name: /capabilit/ }).click();
  await expect(page.getByRole('list', { name: 'Capabilities' })).toContainText('process.checkpoint');
  await page.keyboard.press('Escape');
});

test('what people want of telemetry stands at the node, and whether its agent follows', async () => {
  const wanted = { reason: 'nobody reads it', collection: { disabled_sources: ['sockets'] } };
  const headers = { authorization: `Bearer ${fleet.token}` };
  const answer = await page.request.post(`${fleet.url}/api/v1/agent-config`, { headers, data: wanted });
  expect(answer.ok()).toBe(true);
  const card = page.getByTestId('node-node-a');
  await card.getByRole('button', { name: /^Agent/ }).click();
  const about = page.getByRole('dialog');
  await expect(about).toContainText(/wants sockets off, of the fleet, .*nobody reads it/);
  await expect(about).toContainText('Its agent follows.');
  await page.keyboard.press('Escape');
});

test('a drill is unmistakable, and leads to a plan that waits', async () => {
  await fleet.aether('drill', 'start', 'spot-reclaim');
  await expect(page.getByTestId('drill-banner')).toContainText('Drill running');
  await expect(page.getByTestId('node-node-a').getByTestId('risk')).toHaveAttribute('data-level', 'critical', { timeout: 60_000 });
  if (process.env['UPDATE_SCREENSHOTS'] === '1') {
    // A picture of empty charts shows nothing.
    await page.locator('h1').click();
    await page.waitForTimeout(60_000);
  }
  await picture(page, 'fleet');
  await page.getByRole('navigation').getByRole('link', { name: /Incidents/ }).click();
  await page.getByTestId('incident-row').first().click({ timeout: 60_000 });
  await expect(page.getByTestId('step-execution_plan')).toHaveAttribute('data-standing', 'here', { timeout: 60_000 });
  incidentPath = new URL(page.url()).pathname;
  await expect(page.getByTestId('step-observation_summary').locator('[data-tone=drill]')).toBeVisible();
  await expect(page.getByTestId('approval')).toContainText('Cannot be undone');
  await expect(page.getByTestId('expiry')).toContainText(/expires in \d+:\d\d/);
  await expect(page.getByTestId('approval').getByTestId('hash')).toHaveText(/^[0-9a-f]{64}$/);
  await expect(page.getByTestId('evidence-age')).toContainText(/newest sample (just now|\d+ s ago)/);
  await expect(page.getByTestId('step-verification_result')).toHaveAttribute('data-standing', 'ahead');
  await accessible(page);
  await picture(page, 'incident-waiting');
});

test('a viewer sees the plan, and which role it needs', async ({ browser }) => {
  const made = await context.request.post(`${fleet.url}/api/v1/tokens`, {
    headers: { authorization: `Bearer ${fleet.token}` },
    data: { name: 'night watch', rank: 'viewer' },
  });
  expect(made.ok()).toBe(true);
  const { token } = (await made.json()) as { token: string };
  const other = await browser.newContext();
  const watch = await other.newPage();
  guard(watch);
  await signIn(watch, token);
  await watch.goto(fleet.url + incidentPath);
  await expect(watch.getByText('You can look, not decide.')).toBeVisible();
  await expect(watch.getByText('You are Viewer; this plan asks for Approver or above.')).toBeVisible();
  await expect(watch.getByTestId('approve')).toHaveCount(0);
  await other.close();
});

test('approved by a click, the workload goes on where it was, on node-b', async () => {
  await page.getByRole('link', { name: 'Fleet' }).first().click();
  await expect(page.getByTestId('workload-demo-counter')).toHaveAttribute('data-node', 'node-a');
  const before = await progress();
  await page.goto(fleet.url + incidentPath);
  // A nervous finger: two clicks, one approval.
  await page.getByTestId('approve').dblclick();
  for (const step of STEPS) {
    await expect(page.getByTestId(`step-${step}`), step).toHaveAttribute('data-standing', 'done', { timeout: 120_000 });
  }
  await expect(page.getByTestId('step-incident_report')).toContainText('Resolved');
  await expect(page.getByTestId('chain')).toHaveText('Hash chain whole');
  for (const step of STEPS) await expect(page.getByTestId(`step-${step}`).locator('[data-tone=drill]')).toBeVisible();
  await expect(page.getByText('Not approved')).toHaveCount(0);
  await expect(page.getByText(/^approved by /)).toHaveCount(1);
  await accessible(page);
  await picture(page, 'incident-resolved');
  await page.getByRole('link', { name: 'Fleet' }).first().click();
  await expect(page.getByTestId('workload-demo-counter')).toHaveAttribute('data-node', 'node-b');
  await expect.poll(progress).toBeGreaterThanOrEqual(before);
  const after = await progress();
  await expect.poll(progress).toBeGreaterThan(after);
});

test('a drill that is stopped is over', async () => {
  await fleet.aether('drill', 'stop');
  await expect(page.getByTestId('drill-banner')).toHaveCount(0, { timeout: 30_000 });
});

test('a component is brought, watched in shadow, and its decisions are run again', async () => {
  await page.goto(`${fleet.url}/plugins`);
  await page.getByTestId('file').setInputFiles({ name: 'notes.wasm', mimeType: 'application/wasm', buffer: Buffer.from('not a component') });
  await expect(page.getByRole('alert')).toContainText('notes.wasm was not taken');
  await page.getByTestId('file').setInputFiles(path.resolve(import.meta.dirname, '../../../build/plugins/ewma.wasm'));
  await expect(page.getByTestId('taken')).toContainText('is in the registry', { timeout: 60_000 });
  await accessible(page);
  await page.getByRole('button', { name: 'Add as candidate' }).click();
  await expect(page.getByTestId('taken')).toContainText('is a candidate in risk', { timeout: 60_000 });
  await page.getByRole('button', { name: 'Done' }).click();
  const row = page.getByTestId('slot-risk').getByRole('row', { name: /^ewma / });
  await expect(row).toContainText('Candidate');
  await row.getByRole('button', { name: /Details of/ }).click();
  await page.getByLabel(/^Why/).fill('first look');
  await page.getByRole('button', { name: 'Watch it in shadow' }).click();
  await expect(row).toContainText('Shadow');
  await expect(page.getByTestId('generation-risk')).toContainText('first look');
  // Asked beside the others, with no effect.
  await expect.poll(async () => Number(await row.getByRole('link').textContent()), { timeout: 30_000 }).toBeGreaterThan(0);
  // Without the evidence that the next step asks for, it is refused in words.
  await page.getByRole('button', { name: 'Answer for 10 %' }).click();
  await expect(page.getByRole('alert').filter({ hasText: 'The slot is as it was' })).toBeVisible();
  await accessible(page);
  await picture(page, 'slots');
  await page.goto(`${fleet.url}/decisions`);
  await page.getByRole('table').getByRole('link').first().click();
  await page.getByRole('button', { name: 'Replay' }).click();
  await expect(page.getByTestId('replay')).toHaveAttribute('data-verdict', 'identical', { timeout: 30_000 });
});

test('a backtest tells what a candidate would have said', async () => {
  await page.goto(`${fleet.url}/backtests`);
  await page.getByRole('button', { name: 'Start' }).click();
  await expect(page.getByTestId('backtest')).toHaveAttribute('data-state', 'done', { timeout: 120_000 });
  await expect(page.getByTestId('figures')).toContainText('Evaluations');
  await accessible(page);
  await picture(page, 'backtest');
});

test('every page can be read in both schemes, and by everybody', async () => {
  const pages: [name: string, open: string, ready: () => Promise<void>][] = [
    ['fleet-after', '/', () => expect(page.getByTestId('node-node-b')).toBeVisible()],
    ['incidents', '/incidents', () => expect(page.getByTestId('incident-row').first()).toBeVisible()],
    ['plugins', '/plugins', () => expect(page.getByTestId('slot-risk')).toContainText('spot-risk')],
    ['backtests', '/backtests', () => expect(page.getByRole('heading', { name: 'Backtests' })).toBeVisible()],
    ['decisions', '/decisions', () => expect(page.getByRole('table')).toBeVisible()],
    ['audit', '/audit', () => expect(page.getByRole('table')).toContainText('plan.approve')],
  ];
  for (const [name, open, ready] of pages) {
    await page.goto(fleet.url + open);
    await ready();
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme });
      await accessible(page);
    }
    await picture(page, name);
  }
  await page.goto(`${fleet.url}/decisions`);
  await page.getByRole('table').getByRole('link').first().click();
  await expect(page.getByRole('heading', { name: 'Question' })).toBeVisible();
  await accessible(page);
  await picture(page, 'decision');
});

test('nothing was asked elsewhere, and no policy of the page was broken', () => {
  expect(forbidden).toEqual([]);
});

test('when the host is gone, the page says so', async () => {
  await page.goto(fleet.url);
  await expect(page.getByTestId('connection')).toHaveText(/Live/);
  await fleet.stop();
  await expect(page.getByTestId('connection')).toContainText('Connection lost');
  await expect(page.getByRole('alert').first()).toContainText('No connection to the host');
});
