//! One of the two that are compared, as a client sees it.

use skiff_datastore::proto::kv_client::KvClient;
use skiff_datastore::proto::lease_client::LeaseClient;
use skiff_datastore::proto::maintenance_client::MaintenanceClient;
use skiff_datastore::proto::watch_client::WatchClient;
use tonic::transport::Channel;

/// Clients on one connection.
#[derive(Clone)]
pub struct Side {
    channel: Channel,
}

impl Side {
    pub fn new(channel: Channel) -> Side {
        Side { channel }
    }

    pub fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    pub fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    pub fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    pub fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }
}
