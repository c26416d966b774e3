/** Requests to the host that served this page, and its refusals in words. */

export interface ProblemDocument {
  title: string;
  status: number;
  detail: string;
  code: string;
  instance: string;
}

/** What the host answered instead of what was asked: RFC 9457, with a stable code. */
export class Problem extends Error {
  readonly status: number;
  readonly code: string;
  readonly title: string;
  readonly instance: string;

  constructor(document: Partial<ProblemDocument>, status: number) {
    super(document.detail ?? `the host answered with status ${status}`);
    this.name = 'Problem';
    this.status = status;
    this.code = document.code ?? '';
    this.title = document.title ?? 'Request refused';
    this.instance = document.instance ?? '';
  }
}

/** The host could not be reached at all. */
export class Unreachable extends Error {
  constructor(cause: unknown) {
    super('the host cannot be reached; it may be restarting, or the network is down', { cause });
    this.name = 'Unreachable';
  }
}

/** `body` is what could be made of the answer; a proxy on the way may answer with anything. */
export function problemOf(response: Response, body: unknown): Problem {
  const document = typeof body === 'object' && body !== null ? (body as Partial<ProblemDocument>) : {};
  return new Problem(document, response.status);
}

export function inWords(error: unknown): { title: string; detail: string; code: string; instance: string } {
  if (error instanceof Problem) {
    return { title: error.title, detail: sentenceCase(error.message), code: error.code, instance: error.instance };
  }
  const detail = error instanceof Error ? error.message : String(error);
  const title = error instanceof Unreachable ? 'No connection' : 'Something went wrong on this page';
  return { title, detail: sentenceCase(detail), code: '', instance: '' };
}

function sentenceCase(text: string): string {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}
