"""What is wrong with the data, before anything is measured on it: files, duplicates, splits, columns that leak.

In come data set folders; out goes a list of findings, worst first, each with its evidence and what resolves it.
Error-level findings stop a run unless the config waives them by name; every waiver is printed in the report.
"""

from dermlab.audit.findings import Finding, gate, worst_first
from dermlab.audit.inspection import audit
from dermlab.audit.proxies import proxy_columns

__all__ = ["Finding", "audit", "gate", "proxy_columns", "worst_first"]
