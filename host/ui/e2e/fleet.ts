/** The real local fleet of `aether up`, on a free port and in a folder of its own; ended with all that it started. */
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

const root = path.resolve(import.meta.dirname, '../../..');
const START_LIMIT_MS = 60_000;
const STOP_LIMIT_MS = 40_000;

/** `aether`: named by AETHER_BIN, or as cargo built it. */
function program(): string {
  const target = process.env['CARGO_TARGET_DIR'] ?? path.join(root, 'target');
  const found = [process.env['AETHER_BIN'], path.join(target, 'debug/aether'), path.join(target, 'release/aether')].find(
    (candidate) => candidate !== undefined && existsSync(candidate),
  );
  if (!found) throw new Error(`there is no \`aether\` in ${target}: run \`make build\`, or name it with AETHER_BIN`);
  return found;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

export class Fleet {
  readonly url: string;
  readonly token: string;
  /** When the host said that it runs. */
  readonly started: number;
  readonly #dir: string;
  readonly #up: ChildProcess;
  #stopped = false;

  private constructor(url: string, token: string, dir: string, up: ChildProcess) {
    this.url = url;
    this.token = token;
    this.started = Date.now();
    this.#dir = dir;
    this.#up = up;
  }

  static async start(): Promise<Fleet> {
    const dir = await mkdtemp(path.join(tmpdir(), 'aether-e2e-'));
    const up = spawn(program(), ['up', '--listen', `127.0.0.1:${await freePort()}`, '--dir', dir], {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let said = '';
    let log = '';
    up.stderr.on('data', (chunk: Buffer) => (log = (log + chunk.toString()).slice(-8_000)));
    try {
      const [url, token] = await new Promise<[string, string]>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error('`aether up` did not greet in time')), START_LIMIT_MS);
        up.stdout.on('data', (chunk: Buffer) => {
          said += chunk.toString();
          const url = /web page\s+(\S+)/.exec(said)?.[1];
          const token = /sign in\s+(\S+)/.exec(said)?.[1];
          if (url && token) {
            clearTimeout(timer);
            resolve([url, token]);
          }
        });
        up.once('error', reject);
        up.once('exit', (code) => reject(new Error(`\`aether up\` ended with ${code}`)));
      });
      return new Fleet(url.replace(/\/$/, ''), token, dir, up);
    } catch (error) {
      up.kill('SIGKILL');
      await rm(dir, { recursive: true, force: true });
      throw new Error(`${String(error)}\n${said}\n${log}`, { cause: error });
    }
  }

  /** Runs the command line against this fleet, as a person at a terminal would. */
  async aether(...args: string[]): Promise<string> {
    const env = { ...process.env, AETHER_URL: this.url, AETHER_TOKEN: this.token };
    const { stdout } = await promisify(execFile)(program(), args, { cwd: root, env, timeout: 60_000 });
    return stdout;
  }

  /** What the agents wrote, for a test that failed. */
  async logs(): Promise<string> {
    const files = ['node-a.log', 'node-b.log'];
    const texts = await Promise.all(files.map((file) => readFile(path.join(this.#dir, file), 'utf8').catch(() => 'none')));
    return files.map((file, i) => `== ${file}\n${texts[i]?.slice(-6_000) ?? ''}`).join('\n');
  }

  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    const up = this.#up;
    if (up.exitCode === null && up.signalCode === null) {
      const ended = new Promise((resolve) => up.once('exit', resolve));
      up.kill('SIGINT');
      const timer = setTimeout(() => up.kill('SIGKILL'), STOP_LIMIT_MS);
      await ended;
      clearTimeout(timer);
    }
    await rm(this.#dir, { recursive: true, force: true });
  }
}
