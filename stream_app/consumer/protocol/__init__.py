"""KCL's MultiLang protocol: the pipe, lines, messages, and the coalescing of batches."""
