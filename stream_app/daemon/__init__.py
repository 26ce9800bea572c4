"""Starts and supervises the KCL MultiLangDaemon: properties, Java, logs, shutdown policy, the lock of the leader."""
