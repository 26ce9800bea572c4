"""Runs and supervises the KCL MultiLangDaemon: properties, Java runtime, logs, restarts and shutdown."""
