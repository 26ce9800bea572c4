"""KCL's MultiLang protocol: pipe, lines, messages and the coalescing of batches."""
