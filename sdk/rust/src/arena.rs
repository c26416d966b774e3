//! A small first heap beside the static data.
//!
//! Rust's own allocator takes a page of memory (64 KiB) of its own for the first byte that is asked of it, and each page
//! is one more to reset for the fresh instance of every evaluation. What most decisions need fits behind the static data
//! in a page that is there anyway. What does not fit, or no longer, comes from Rust's own allocator.
#![allow(unsafe_code, reason = "an allocator hands out raw memory")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::UnsafeCell,
    ptr,
};

/// With the stack that the kit gives and the data of a usual plugin, within one page.
const BYTES: usize = 8 << 10;
const ALIGN: usize = 16;

#[cfg(target_family = "wasm")]
#[global_allocator]
static ARENA: Arena = Arena::new();

#[repr(align(16))]
struct Memory(UnsafeCell<[u8; BYTES]>);

/// Given out from the front. Only what was given out last can be taken back, so that there is nothing to keep account of:
/// an instance lives for one evaluation.
struct Arena {
    memory: Memory,
    used: UnsafeCell<usize>,
}

// SAFETY: a component has one thread.
#[cfg(target_family = "wasm")]
unsafe impl Sync for Arena {}

impl Arena {
    const fn new() -> Self {
        Self { memory: Memory(UnsafeCell::new([0; BYTES])), used: UnsafeCell::new(0) }
    }

    fn start(&self) -> *mut u8 {
        self.memory.0.get().cast()
    }

    /// Where `pointer` lies in the arena, if it does.
    fn offset(&self, pointer: *mut u8) -> Option<usize> {
        pointer.addr().checked_sub(self.start().addr()).filter(|offset| *offset < BYTES)
    }

    /// Where `size` bytes from `offset` on end, if they fit.
    fn end(offset: usize, size: usize) -> Option<usize> {
        offset.checked_add(size).filter(|end| *end <= BYTES)
    }
}

// SAFETY: what is given out of the arena lies within it, is aligned as asked for, and is given out once: `used` goes back
// over what was given out last alone, when that is freed. All else is `System`'s, to give and to take.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: one thread, and nothing here calls back; `aligned` is within the arena.
        unsafe {
            let used = &mut *self.used.get();
            let aligned = used.next_multiple_of(layout.align());
            match Self::end(aligned, layout.size()) {
                Some(end) if layout.align() <= ALIGN => {
                    *used = end;
                    self.start().add(aligned)
                }
                _ => System.alloc(layout),
            }
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; what is not in the arena came from `System`.
        unsafe {
            let Some(offset) = self.offset(pointer) else { return System.dealloc(pointer, layout) };
            let used = &mut *self.used.get();
            if offset + layout.size() == *used {
                *used = offset;
            }
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above; the new place is another one, and has room for what is copied.
        unsafe {
            let Some(offset) = self.offset(pointer) else { return System.realloc(pointer, layout, size) };
            {
                let used = &mut *self.used.get();
                if offset + layout.size() == *used
                    && let Some(end) = Self::end(offset, size)
                {
                    *used = end;
                    return pointer;
                }
            }
            // The caller vouches for the size, as for any allocation of it.
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                ptr::copy_nonoverlapping(pointer, new, layout.size().min(size));
                self.dealloc(pointer, layout);
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ALIGN, Arena, BYTES};
    use std::{
        alloc::{GlobalAlloc as _, Layout},
        slice,
    };

    /// A piece that was given out, with the byte that all of it is filled with.
    struct Piece {
        start: *mut u8,
        layout: Layout,
        mark: u8,
    }

    impl Piece {
        fn bytes(&mut self) -> &mut [u8] {
            // SAFETY: given out with this layout, and not taken back.
            unsafe { slice::from_raw_parts_mut(self.start, self.layout.size()) }
        }
    }

    /// Gives out, moves and takes back by turns, as `seed` says; every piece keeps what was written to it.
    fn exercise(mut seed: u64) {
        let mut next = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(seed >> 33).expect("31 bits") % below
        };
        let arena = Arena::new();
        let mut pieces: Vec<Piece> = Vec::new();
        for turn in 0..2_000_u32 {
            let mark = turn.to_le_bytes()[0];
            match next(3) {
                0 => {
                    let layout = Layout::from_size_align(1 + next(600), 1 << next(7)).expect("a layout");
                    // SAFETY: not of size 0.
                    let start = unsafe { arena.alloc(layout) };
                    assert!(!start.is_null() && start.addr().is_multiple_of(layout.align()));
                    pieces.push(Piece { start, layout, mark });
                    pieces.last_mut().expect("one").bytes().fill(mark);
                }
                1 if !pieces.is_empty() => {
                    let index = next(pieces.len());
                    let (piece, size) = (&mut pieces[index], 1 + next(900));
                    let kept = piece.layout.size().min(size);
                    // SAFETY: given out with this layout.
                    piece.start = unsafe { arena.realloc(piece.start, piece.layout, size) };
                    piece.layout = Layout::from_size_align(size, piece.layout.align()).expect("a layout");
                    let was = piece.mark;
                    assert!(piece.bytes()[..kept].iter().all(|byte| *byte == was), "what was there came along");
                    piece.mark = mark;
                    piece.bytes().fill(mark);
                }
                _ if !pieces.is_empty() => {
                    let mut piece = pieces.swap_remove(next(pieces.len()));
                    let mark = piece.mark;
                    assert!(piece.bytes().iter().all(|byte| *byte == mark), "nobody else wrote here");
                    // SAFETY: given out with this layout, and forgotten.
                    unsafe { arena.dealloc(piece.start, piece.layout) };
                }
                _ => {}
            }
        }
        for mut piece in pieces {
            let mark = piece.mark;
            assert!(piece.bytes().iter().all(|byte| *byte == mark), "nobody else wrote here");
            // SAFETY: given out with this layout.
            unsafe { arena.dealloc(piece.start, piece.layout) };
        }
    }

    #[test]
    fn no_piece_is_given_out_twice() {
        (0..50).for_each(exercise);
    }

    #[test]
    fn what_does_not_fit_comes_from_elsewhere() {
        let arena = Arena::new();
        let place = |size, align| {
            let layout = Layout::from_size_align(size, align).expect("a layout");
            // SAFETY: not of size 0; given back at once.
            unsafe {
                let start = arena.alloc(layout);
                let within = arena.offset(start).is_some();
                arena.dealloc(start, layout);
                within
            }
        };
        assert!(place(BYTES, ALIGN), "all of it");
        assert!(place(BYTES, ALIGN), "all of it again, because it was given back");
        assert!(!place(BYTES + 1, 1), "more than there is");
        assert!(!place(16, ALIGN * 2), "aligned as the arena is not");
    }
}
