// The C library's streams want a system to write to. Nothing here has one, so that the component imports no WASI and is
// cheap to start. Left out when plugin.toml says `wasi = true`.
#include <stdint.h>

enum { BAD_DESCRIPTOR = 8 };

int32_t __imported_wasi_snapshot_preview1_fd_close(int32_t descriptor);
int32_t __imported_wasi_snapshot_preview1_fd_seek(int32_t descriptor, int64_t offset, int32_t whence, int32_t at);
int32_t __imported_wasi_snapshot_preview1_fd_write(int32_t descriptor, int32_t parts, int32_t count, int32_t written);

int32_t __imported_wasi_snapshot_preview1_fd_close(int32_t descriptor) {
  (void)descriptor;
  return BAD_DESCRIPTOR;
}

int32_t __imported_wasi_snapshot_preview1_fd_seek(int32_t descriptor, int64_t offset, int32_t whence, int32_t at) {
  (void)descriptor, (void)offset, (void)whence, (void)at;
  return BAD_DESCRIPTOR;
}

int32_t __imported_wasi_snapshot_preview1_fd_write(int32_t descriptor, int32_t parts, int32_t count, int32_t written) {
  (void)descriptor, (void)parts, (void)count, (void)written;
  return BAD_DESCRIPTOR;
}
