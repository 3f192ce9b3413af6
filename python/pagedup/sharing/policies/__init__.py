"""How hypervisors share the pages of live guests: which pages they look at, and when."""

from pagedup.sharing.policies.dirty import Dirty, DirtyCounts
from pagedup.sharing.policies.esx import Esx, EsxCounts
from pagedup.sharing.policies.ksm import Ksm, KsmScanCounts
from pagedup.sharing.policies.scanner import Policy, Scanner

__all__ = ["Dirty", "DirtyCounts", "Esx", "EsxCounts", "Ksm", "KsmScanCounts", "Policy", "Scanner"]
