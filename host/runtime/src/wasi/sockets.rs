//! `wasi:sockets`: linked because runtimes insist, and refused: no name resolves, and no socket can be made. As none can
//! exist, what could be done with one needs no answer.

use crate::{
    host::State,
    wasi::{
        Never,
        bindings::wasi::sockets::{
            instance_network, ip_name_lookup,
            network::{self, ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress},
            tcp, tcp_create_socket, udp, udp_create_socket,
        },
        io::{Input, Output, Pollable},
    },
};
use wasmtime::component::Resource;

/// The handle that runtimes ask for before they ask for anything else. It is good for nothing.
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Network;

impl State {
    /// Whatever the guest named as a socket, it is none.
    fn impossible<T>(&mut self, this: &Resource<Never>) -> wasmtime::Result<T> {
        match *self.wasi()?.table.get(this)? {}
    }
}

impl network::Host for State {
    fn network_error_code(&mut self, _: Resource<Never>) -> wasmtime::Result<Option<ErrorCode>> {
        self.wasi()?;
        Ok(None)
    }
}

impl network::HostNetwork for State {
    fn drop(&mut self, this: Resource<Network>) -> wasmtime::Result<()> {
        self.take(this)
    }
}

impl instance_network::Host for State {
    fn instance_network(&mut self) -> wasmtime::Result<Resource<Network>> {
        self.wasi()?;
        self.hand(Network)
    }
}

impl ip_name_lookup::Host for State {
    fn resolve_addresses(
        &mut self,
        _: Resource<Network>,
        _: String,
    ) -> wasmtime::Result<Result<Resource<Never>, ErrorCode>> {
        self.wasi()?;
        Ok(Err(ErrorCode::AccessDenied))
    }
}

impl tcp_create_socket::Host for State {
    fn create_tcp_socket(&mut self, _: IpAddressFamily) -> wasmtime::Result<Result<Resource<Never>, ErrorCode>> {
        self.wasi()?;
        Ok(Err(ErrorCode::AccessDenied))
    }
}

impl udp_create_socket::Host for State {
    fn create_udp_socket(&mut self, _: IpAddressFamily) -> wasmtime::Result<Result<Resource<Never>, ErrorCode>> {
        self.wasi()?;
        Ok(Err(ErrorCode::AccessDenied))
    }
}

impl ip_name_lookup::HostResolveAddressStream for State {
    fn resolve_next_address(
        &mut self,
        this: Resource<Never>,
    ) -> wasmtime::Result<Result<Option<IpAddress>, ErrorCode>> {
        self.impossible(&this)
    }

    fn subscribe(&mut self, this: Resource<Never>) -> wasmtime::Result<Resource<Pollable>> {
        self.impossible(&this)
    }

    fn drop(&mut self, this: Resource<Never>) -> wasmtime::Result<()> {
        self.take(this)
    }
}

impl tcp::Host for State {}

impl tcp::HostTcpSocket for State {
    fn start_bind(
        &mut self,
        this: Resource<Never>,
        _: Resource<Network>,
        _: IpSocketAddress,
    ) -> wasmtime::Result<Result<(), ErrorCode>> {
        self.impossible(&this)
    }

    fn finish_bind(&mut self, this: Resource<Never>) -> wasmtime::Result<Result<(), ErrorCode>> {
        self.impossible(&this)
    }

    fn start_connect(
        &mut self,
        this: Resource<Never>,
        _: Resource<Network>,
        _: IpSocketAddress,
    ) -> wasmtime::Result<Result<(), ErrorCode>> {
        self.impossible(&this)
    }

    fn finish_connect(
        &mut self,
        this: Resource<Never>,
    ) -> wasmtime::Result<Result<(Resource<Input>, Resource<Output>), ErrorCode>> {
        self.impossible(&this)
    }

    fn start_listen(&mut self, this: Resource<Never>) -> wasmtime::Result<Result<(), ErrorCode>> {
        self.impossible(&this)
    }

    fn finish_listen(&mut self, this: Resource<Never>) -> wasmtime::Result<Result<(), ErrorCode>> {
        self.impossible(&this)
    }

    fn accept(
        &mut self,
        this: Resource<Never>,
    ) -> wasmtime::Result<Result<(Resource<Never>, Resource<Input>, Resource<Output>), ErrorCode>> {
        self.impossible(&this)
    }

    fn local_address(&mut self, this: Resource<Never>) -> wasmtime::Result<Result<IpSocketAddress, ErrorCode>> {
        self.impossible(&this)
    }

    fn remote_address(&mut self, this: Resource<Never>) -> wasmtime::Result<Result<IpSocketAddress, ErrorCode>> {
        self.impossible(&this)
    }

    fn is_listening(&mut self, this: Resource<Never>) -> wasmtime::Result<bool> {
        self.impossible(&this)
    }

    fn address_family(&mut self, this: Resource<Never>) -> wasmtime::Result<IpAddressFamily> {
        self.impossible(&this)
    }

    fn set_listen_backlog_size(&mut self, this: Resource<Never>, _: u64) -> wasmtime::Result<Result<(), ErrorCode>> {
        self.impossible(&this)
    }

    fn keep_alive_enabled(&mut self, this: Resource<Never>) -> wasmtime::Result<Result<bool, ErrorCode>> {
        self.impossible(&this)
    }

    fn set_keep_alive_enabled(&mut self, this: Resource<Never>, _: bool) -> wasmtime::Result<Result<(), ErrorCode>> {
        self.impossible(&this)
    }

    fn keep_alive_idle_time(&mut self, this: Resource<Never>) -> wasmtime::Result<Result<u64, ErrorCode>> {
        self.impossible(&this)
    }

    fn set_keep_alive_idle_time(&mut self, this: Resource<Never>, _: u64) -> wasmtime::Result<Result<(), ErrorCode>> {
        self.impossible(&this)
    }

    fn keep_alive_interval(&mut self, this: Resource<Never>) -> wasmtime::Result<Result<u64, ErrorCode>> {
        self.impossible(&this)
    }

    fn set_keep_alive_interval(&mut self, this: Resource<Never>, _: u64) -> wasmtime::Result<Result<(), ErrorCode>> {
        self.impossible(&this)
    }

    fn keep_alive_count(&mut self, this: Resource<Never>) -> wasmtime::Result<Result<u32, ErrorCode>> {
        self.impossible(&this)
    }

    fn set_keep_alive_count(&mut self, this: Resource<Never>, _: u32) -> wasmtime::Result<Result<(), ErrorCode>> {
        self.impossible(&this)
    }

    fn hop_limit(&mut self, this: Resource<Never>) -> wasmtime::Result<Result<u8, ErrorCode>> {
        self.impossible(&this)
    }

    fn set_hop_limit(&mut self, this: Resource<Never>, _: u8) -> wasmtime::Result<Result<(), ErrorCode>> {
        self.impossible(&this)
    }

    fn receive_buffer_size(&mut self, this: Resource<Never>) -> wasmtime::Result<Result<u64, ErrorCode>> {
        self.impossible(&this)
    }

    fn set_receive_buffer_size(&mut self, this: Resource<Never>, _: u64) -> wasmtime::Result<Result<(), ErrorCode>> {
        self.impossible(&this)
    }

    fn send_buffer_size(&mut self, this: Resource<Never>) -> wasmtime::Result<Result<u64, ErrorCode>> {
        self.impossible(&this)
    }

    fn set_send_buffer_size(&mut self, this: Resource<Never>, _: u64) -> wasmtime::Result<Result<(), ErrorCode>> {
        self.impossible(&this)
    }

    fn subscribe(&mut self, this: Resource<Never>) -> wasmtime::Result<Resource<Pollable>> {
        self.impossible(&this)
    }

    fn shutdown(&mut self, this: Resource<Never>, _: tcp::ShutdownType) -> wasmtime::Result<Result<(), ErrorCode>> {
        self.impossible(&this)
    }

    fn drop(&mut self, this: Resource<Never>) -> wasmtime::Result<()> {
        self.take(this)
    }
}

impl udp::Host for State {}

impl udp::HostUdpSocket for State {
    fn start_bind(
        &mut self,
        this: Resource<Never>,
        _: Resource<Network>,
        _: IpSocketAddress,
    ) -> wasmtime::Result<Result<(), ErrorCode>> {
        self.impossible(&this)
    }

    fn finish_bind(&mut self, this: Resource<Never>) -> wasmtime::Result<Result<(), ErrorCode>> {
        self.impossible(&this)
    }

    fn stream(
        &mut self,
        this: Resource<Never>,
        _: Option<IpSocketAddress>,
    ) -> wasmtime::Result<Result<(Resource<Never>, Resource<Never>), ErrorCode>> {
        self.impossible(&this)
    }

    fn local_address(&mut self, this: Resource<Never>) -> wasmtime::Result<Result<IpSocketAddress, ErrorCode>> {
        self.impossible(&this)
    }

    fn remote_address(&mut self, this: Resource<Never>) -> wasmtime::Result<Result<IpSocketAddress, ErrorCode>> {
        self.impossible(&this)
    }

    fn address_family(&mut self, this: Resource<Never>) -> wasmtime::Result<IpAddressFamily> {
        self.impossible(&this)
    }

    fn unicast_hop_limit(&mut self, this: Resource<Never>) -> wasmtime::Result<Result<u8, ErrorCode>> {
        self.impossible(&this)
    }

    fn set_unicast_hop_limit(&mut self, this: Resource<Never>, _: u8) -> wasmtime::Result<Result<(), ErrorCode>> {
        self.impossible(&this)
    }

    fn receive_buffer_size(&mut self, this: Resource<Never>) -> wasmtime::Result<Result<u64, ErrorCode>> {
        self.impossible(&this)
    }

    fn set_receive_buffer_size(&mut self, this: Resource<Never>, _: u64) -> wasmtime::Result<Result<(), ErrorCode>> {
        self.impossible(&this)
    }

    fn send_buffer_size(&mut self, this: Resource<Never>) -> wasmtime::Result<Result<u64, ErrorCode>> {
        self.impossible(&this)
    }

    fn set_send_buffer_size(&mut self, this: Resource<Never>, _: u64) -> wasmtime::Result<Result<(), ErrorCode>> {
        self.impossible(&this)
    }

    fn subscribe(&mut self, this: Resource<Never>) -> wasmtime::Result<Resource<Pollable>> {
        self.impossible(&this)
    }

    fn drop(&mut self, this: Resource<Never>) -> wasmtime::Result<()> {
        self.take(this)
    }
}

impl udp::HostIncomingDatagramStream for State {
    fn receive(
        &mut self,
        this: Resource<Never>,
        _: u64,
    ) -> wasmtime::Result<Result<Vec<udp::IncomingDatagram>, ErrorCode>> {
        self.impossible(&this)
    }

    fn subscribe(&mut self, this: Resource<Never>) -> wasmtime::Result<Resource<Pollable>> {
        self.impossible(&this)
    }

    fn drop(&mut self, this: Resource<Never>) -> wasmtime::Result<()> {
        self.take(this)
    }
}

impl udp::HostOutgoingDatagramStream for State {
    fn check_send(&mut self, this: Resource<Never>) -> wasmtime::Result<Result<u64, ErrorCode>> {
        self.impossible(&this)
    }

    fn send(
        &mut self,
        this: Resource<Never>,
        _: Vec<udp::OutgoingDatagram>,
    ) -> wasmtime::Result<Result<u64, ErrorCode>> {
        self.impossible(&this)
    }

    fn subscribe(&mut self, this: Resource<Never>) -> wasmtime::Result<Resource<Pollable>> {
        self.impossible(&this)
    }

    fn drop(&mut self, this: Resource<Never>) -> wasmtime::Result<()> {
        self.take(this)
    }
}
