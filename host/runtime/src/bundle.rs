//! Policy bundles on disk.
