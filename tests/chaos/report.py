"""A run's log: every act with what came of it, and every finding, in a folder of the run's own."""

import time
from collections import Counter

from chaos.known import reason_of


class Report:
    def __init__(self, folder):
        self.start, self.findings = time.monotonic(), []
        self.path = folder / "acts.log"
        self.file = open(self.path, "w", buffering=1)

    def now(self):
        """Seconds since the run began."""
        return time.monotonic() - self.start

    def note(self, *words):
        self.file.write(f"{self.now():8.2f} {' '.join(map(str, words))}\n")

    def say(self, *words):
        self.note(*words)
        print(f"{self.now():8.2f}", *words, flush=True)

    def found(self, finding):
        self.findings.append(finding)
        reason = reason_of(finding)
        where = f" [{finding.server}]" if finding.server else ""
        self.say(f"{finding.kind}{where}: {finding.text}" + (f" (known: {reason})" if reason else ""))

    def close(self):
        """Says what was found. Returns how many findings are not known."""
        new = [finding for finding in self.findings if reason_of(finding) is None]
        known = len(self.findings) - len(new)
        counts = ", ".join(f"{kind} {count}" for kind, count in sorted(Counter(f.kind for f in new).items()))
        self.say(f"{len(new)} found ({counts or 'nothing'}), {known} known; {self.path}")
        self.file.close()
        return len(new)
