"""Results as people and programs read them: pure functions, which neither compute nor print.

What a terminal shows is in `pagedup.report.terminal`, which needs rich and is imported only for that.
"""

from pagedup.report.json import SCAN_SCHEMA, scan_json
from pagedup.report.scan_result import ScannedGuest, ScanResult
from pagedup.report.verdict import verdict

__all__ = ["SCAN_SCHEMA", "ScanResult", "ScannedGuest", "scan_json", "verdict"]
