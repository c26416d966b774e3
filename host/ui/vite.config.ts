import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';
import { fixtures } from './dev/server.ts';

/** `aether serve` listens here by default; `AETHER_URL` names another. */
const host = process.env['AETHER_URL'] ?? 'http://127.0.0.1:7700';

export default defineConfig(({ mode }) => ({
  plugins: [react(), mode === 'fixtures' ? fixtures() : undefined],
  server: { host: '127.0.0.1', proxy: mode === 'fixtures' ? undefined : { '/api': host } },
  build: {
    target: 'es2023',
    // Fonts and icons stay files of their own: the page's content security policy has no `data:`.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
  test: { include: ['src/**/*.test.ts'], environment: 'node' },
}));
