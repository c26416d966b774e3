/** Sending a file with its progress, which `fetch` cannot tell. */
import type { UploadedPlugin } from './model';
import { Problem, problemOf, Unreachable } from './http';

export interface Upload {
  done: Promise<UploadedPlugin>;
  abort: () => void;
}

/** Sends a component, with its signature's document if there is one. `told` hears the share that was sent, 0 to 1. */
export function uploadComponent(file: File, signature: string | null, told: (share: number) => void): Upload {
  const request = new XMLHttpRequest();
  const done = new Promise<UploadedPlugin>((resolve, reject) => {
    request.upload.onprogress = (event) => {
      if (event.lengthComputable && event.total > 0) told(event.loaded / event.total);
    };
    request.onload = () => {
      let body: unknown = null;
      try {
        body = JSON.parse(request.responseText);
      } catch {
        // A proxy on the way may answer with anything.
      }
      if (request.status >= 200 && request.status < 300) resolve(body as UploadedPlugin);
      else reject(problemOf(new Response(null, { status: request.status }), body));
    };
    request.onerror = () => reject(new Unreachable(null));
    request.onabort = () => reject(new Problem({ title: 'Stopped', detail: 'the upload was stopped; nothing was kept' }, 0));
    request.open('POST', `/api/v1/plugins?file=${encodeURIComponent(file.name)}`);
    request.setRequestHeader('content-type', 'application/wasm');
    // A header is one line.
    if (signature !== null) request.setRequestHeader('aether-signature', signature.replace(/\s*\n\s*/g, ' ').trim());
    request.send(file);
  });
  return { done, abort: () => request.abort() };
}
