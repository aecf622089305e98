"""`make guides`: run every command of the guides that can run here, against a fresh house of their own.

A fenced block that begins with ```sh run is run by bash in the checkout, with the settings of that
house and the tools of the virtual environment on the PATH, as a person would after `. .demo/env`. Any
other ```sh block must say in the line before it what it needs that is not here. Owns nothing of what the
guides say. Exit code 1 when a command fails or a block says neither.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sandbox.demo import Demo
from sandbox.installation import Installation
from sandbox.ports import free_port
from sandbox.standins import RemoteWorld
from sandbox.unprivileged import Account, find_binaries

ROOT = Path(__file__).resolve().parent.parent
BLOCK_SECONDS = 180
RUN, SHELL, FENCE = "```sh run", "```sh", "```"
EXCUSE = "(not run here: needs "


@dataclass(frozen=True)
class Block:
    """One fenced block of shell commands. ``excuse``: it says what it needs that is not here."""

    guide: Path
    line: int
    commands: str
    runs: bool
    excuse: bool

    @property
    def place(self) -> str:
        """Where it stands, for a person to find."""
        return f"{self.guide.name}:{self.line}"


def read_blocks(guide: Path) -> Iterator[Block]:
    """The shell blocks of a guide, in order."""
    lines = guide.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        opening = lines[number].strip()
        if opening in (RUN, SHELL):
            end = next(later for later in range(number + 1, len(lines)) if lines[later].strip() == FENCE)
            before = next((line for line in reversed(lines[:number]) if line.strip()), "")
            commands = textwrap.dedent("\n".join(lines[number + 1 : end]))
            yield Block(guide, number + 1, commands, opening == RUN, EXCUSE in before)
            number = end
        number += 1


def unexcused(blocks: list[Block]) -> list[str]:
    """The places of blocks that neither run nor say why not."""
    return [block.place for block in blocks if not block.runs and not block.excuse]


def run_block(block: Block, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run its commands until the first that fails; its whole output is in the answer."""
    return subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", block.commands],
        cwd=ROOT,
        env=environment,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=BLOCK_SECONDS,
        check=False,
    )


def main() -> int:
    """Check and run all guides; returns the exit code."""
    blocks = [block for guide in sorted((ROOT / "docs").glob("*.md")) for block in read_blocks(guide)]
    silent = unexcused(blocks)
    for place in silent:
        print(f"!! {place} does not run, and does not say what it needs")
    os.umask(0o077)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the house is stopped then, too
    with tempfile.TemporaryDirectory(prefix="voicedesk-guides-") as folder:
        demo = Demo(Installation(ROOT, Path(folder) / "demo", free_port()))
        try:
            demo.start()
            faults = demo.play()  # so that there is something to look at
            accounts = _accounts(demo)
            failed = faults + sum(not _runs(block, demo, accounts) for block in blocks if block.runs)
        finally:
            demo.stop()
    print(f"{sum(block.runs for block in blocks)} blocks run, {failed} failed, {len(silent)} unexplained")
    return 1 if failed or silent else 0


def _accounts(demo: Demo) -> dict[str, str]:
    """Accounts at the stand-ins as a person has them at the providers, under the names that the guides use."""
    world = RemoteWorld(demo.environment["TWILIO_API_BASE_URL"].removesuffix("/twilio"))
    account = {
        "TWILIO_ACCOUNT_SID": f"AC{secrets.token_hex(16)}",
        "TWILIO_AUTH_TOKEN": secrets.token_hex(16),
        "BUSINESS_NUMBER": "+4930555500011",
        "VAPI_WEBHOOK_SECRET": secrets.token_hex(32),
        "BROWSER": "curl --fail --silent --show-error --location --output /dev/null %s",
    }
    number = account["BUSINESS_NUMBER"]
    world.twilio_account(account["TWILIO_ACCOUNT_SID"], account["TWILIO_AUTH_TOKEN"], [number])
    key = demo.environment["VAPI_PRIVATE_KEY"]
    world.phone_number(key, number)
    world.calendar("owner@example.com")
    return {**account, "VAPI_ASSISTANT_ID": str(world.assistant(key)["id"])}


def _runs(block: Block, demo: Demo, accounts: dict[str, str]) -> bool:
    tools = f"{Path(sys.executable).parent}:{find_binaries(Account())}"
    environment = {**demo.environment, **accounts, "PATH": f"{tools}:{os.environ['PATH']}"}
    done = run_block(block, environment)
    print(f"{'ok' if done.returncode == 0 else '!!'} {block.place}")
    if done.returncode:
        print(f"{block.commands}\n---\n{done.stdout[-3000:]}\n--- exit code {done.returncode}")
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
