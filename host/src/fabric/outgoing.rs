//! The way down to one participant: a bounded queue whose frames are numbered as they leave, in order.

use crate::clock;
use aether_proto::v1::{ServerFrame, server_frame::Payload};
use std::{
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::Status;

/// A frame that waits to be sent, or the end of the stream with its reason.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all are frames: a box for each would cost more than it saves")]
pub(crate) enum Outgoing {
    Frame {
        payload: Payload,
        traceparent: String,
        /// Given back when the frame leaves, so that large frames cannot pile up.
        slot: Option<OwnedSemaphorePermit>,
    },
    End(Status),
}

impl From<Payload> for Outgoing {
    fn from(payload: Payload) -> Self {
        Outgoing::Frame { payload, traceparent: String::new(), slot: None }
    }
}

/// What tonic takes frames from.
#[derive(Debug)]
pub struct Frames {
    receiver: mpsc::Receiver<Outgoing>,
    sequence: u64,
}

impl Frames {
    pub(crate) fn new(receiver: mpsc::Receiver<Outgoing>) -> Self {
        Self { receiver, sequence: 0 }
    }
}

impl futures::Stream for Frames {
    type Item = Result<ServerFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(context).map(|next| {
            Some(match next? {
                Outgoing::Frame { payload, traceparent, slot } => {
                    drop(slot);
                    self.sequence += 1;
                    let (sequence, sent_at_ms) = (self.sequence, clock::now().0);
                    Ok(ServerFrame { sequence, sent_at_ms, traceparent, payload: Some(payload) })
                }
                Outgoing::End(status) => Err(status),
            })
        })
    }
}
