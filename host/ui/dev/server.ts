/**
 * `npm run dev:fixtures`: the page with an invented fleet behind it, for working on how it looks. Sign in with `admin`,
 * `approver` or `viewer`. Never a part of the build.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Plugin } from 'vite';
import type { Rank, Session } from '../src/api/model.ts';
import * as world from './world.ts';

const RANKS: Rank[] = ['viewer', 'operator', 'approver', 'policy-author', 'admin'];

export function fixtures(): Plugin {
  return {
    name: 'aether-fixtures',
    configureServer: (server) => void server.middlewares.use('/api/v1', handle),
  };
}

function problem(response: ServerResponse, status: number, code: string, title: string, detail: string) {
  response.writeHead(status, { 'content-type': 'application/problem+json' });
  response.end(JSON.stringify({ type: `urn:aether:error:${code}`, title, status, detail, code, instance: 'problem-fixture' }));
}

function sessionOf(request: IncomingMessage): Session | null {
  const name = /aether-fixture=([\w-]+)/.exec(request.headers.cookie ?? '')?.[1];
  const rank = RANKS.find((known) => known === name);
  return rank ? { principal: `local-${rank}`, name: `${rank}`, rank, expires_at: world.BEGIN + 12 * 3_600_000 } : null;
}

function handle(request: IncomingMessage, response: ServerResponse) {
  const url = new URL(request.url ?? '/', 'http://fixtures');
  const path = url.pathname.split('/').filter(Boolean).map(decodeURIComponent);
  let body = '';
  request.on('data', (chunk: Buffer) => (body += chunk.toString()));
  request.on('end', () => answer(request, response, url, path, body ? (JSON.parse(body) as Record<string, string>) : {}));
}

function answer(request: IncomingMessage, response: ServerResponse, url: URL, path: string[], body: Record<string, string>) {
  const now = Date.now();
  const json = (value: unknown) => {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify(value));
  };
  const [first, second, third] = path;
  if (first === 'session' && request.method === 'POST') {
    if (!RANKS.some((rank) => rank === body['token'])) {
      return problem(response, 401, 'AE0002', 'Token not accepted', 'this token is not known, has expired or was deleted');
    }
    response.setHeader('set-cookie', `aether-fixture=${body['token'] ?? ''}; Path=/; HttpOnly; SameSite=Strict`);
    request.headers.cookie = `aether-fixture=${body['token'] ?? ''}`;
    return json(sessionOf(request));
  }
  if (first === 'session' && request.method === 'DELETE') {
    response.writeHead(204, { 'set-cookie': 'aether-fixture=; Path=/; Max-Age=0' });
    return response.end();
  }
  const session = sessionOf(request);
  if (!session) return problem(response, 401, 'AE0001', 'Not signed in', 'no token was given');
  const incident = world.made.find((made) => made.id === second || world.hashOf(made) === second);
  switch (first) {
    case 'session':
      return json(session);
    case 'status':
      return json(world.status(now));
    case 'breakers':
    case 'break-glass':
      return json([]);
    case 'nodes':
      return json(world.nodes(now));
    case 'workloads':
      return json(world.workloads(now));
    case 'risks':
      return json(world.risks(now));
    case 'telemetry': {
      const number = (name: string) => Number(url.searchParams.get(name));
      const text = (name: string) => url.searchParams.get(name) ?? '';
      return json(world.range(text('subject'), text('metric'), number('from'), number('to'), number('points')));
    }
    case 'incidents':
      if (!second) return json({ incidents: world.made.map((made) => world.detail(made, now).incident), next_before: null });
      if (!incident) return problem(response, 404, 'AE0004', 'Not found', `there is no incident \`${second}\``);
      return json(world.detail(incident, now));
    case 'plans': {
      if (!incident) return problem(response, 404, 'AE0004', 'Not found', `there is no plan \`${second}\``);
      if (!third) return json(world.planDetail(incident, now));
      if (RANKS.indexOf(session.rank) < RANKS.indexOf('approver')) {
        return problem(response, 403, 'AE0003', 'Rank too small', `this needs the rank approver, and you have ${session.rank}`);
      }
      if (incident.ending !== 'waiting') {
        return problem(response, 409, 'AE0020', 'Decision not taken', 'the plan was not approved: no plan waits for approval here');
      }
      incident.approval = {
        plan: world.hashOf(incident),
        by: session.principal,
        rank: session.rank,
        at: now,
        approved: third === 'approve',
        comment: body['comment'] ?? null,
      };
      incident.ending = 'executing';
      setTimeout(() => (incident.ending = 'verifying'), 4_000);
      setTimeout(() => (incident.ending = 'resolved'), 9_000);
      return json({});
    }
    case 'slots':
      return json(world.slots());
    case 'plugins':
      return json(world.plugins());
    case 'decisions':
      return json(second ? world.decision(second) : world.decisions());
    case 'audit':
      return json(world.audit());
    case 'events': {
      response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
      const tell = (name: string) => response.write(`event: ${name}\ndata: {}\n\n`);
      tell('hello');
      const timer = setInterval(() => tell('heartbeat'), 5_000);
      request.on('close', () => clearInterval(timer));
      return;
    }
    default:
      return problem(response, 404, 'AE0005', 'No such endpoint', 'there is no such endpoint');
  }
}
