"""The files of deploy/ and the guides: units systemd takes, settings that exist, blocks that run or say why not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from app.config import Settings
from sandbox.guides import Block, read_blocks, run_block, unexcused

ROOT = Path(__file__).resolve().parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
SOCKET = ROOT / "deploy" / "systemd" / "voicedesk-web.socket"
COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
DOCKERFILE = (ROOT / "deploy" / "container" / "Dockerfile").read_text()
OTHERS = {"RQ_REDIS_URL", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"}  # read by rq, by the postgres image
COMMANDS = {
    "web": "gunicorn -c gunicorn.conf.py wsgi:app",
    "worker": "rq worker --worker-class workers.Worker voicedesk",
    "scheduler": "python -m workers.scheduler",
}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_the_unit_and_has_nothing_to_say_about_it(unit, tmp_path):
    here = unit.read_text().replace("/opt/voicedesk/.venv/bin", str(Path(sys.executable).parent))
    placed = tmp_path / unit.name.replace("@", "@1")
    placed.write_text(here.replace("/opt/voicedesk", str(ROOT)))
    shutil.copy(SOCKET, tmp_path)
    command = ["systemd-analyze", "verify", "--man=no", str(placed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    about_it = [line for line in done.stderr.splitlines() if unit.stem.split("@")[0] in line]
    assert (done.returncode, about_it) == (0, [])


def test_systemds_socket_is_where_nginx_looks_for_the_web_processes_and_they_say_when_they_are_ready():
    (address,) = re.findall(r"^ListenStream=(.*)$", SOCKET.read_text(), re.M)
    assert f"server {address};" in (ROOT / "deploy" / "nginx" / "voicedesk.conf").read_text()
    unit = SOCKET.with_suffix(".service").read_text()
    for line in ("Requires=voicedesk-web.socket", "Type=notify", "NotifyAccess=all", "ExecReload=/bin/kill -s USR2"):
        assert f"\n{line}" in unit


def test_units_and_containers_start_the_same_three_commands():
    started = {re.sub(r"^voicedesk-|@?\.service$", "", unit.name): _start_of(unit) for unit in UNITS}
    assert started == COMMANDS
    containers = {name: " ".join(COMPOSE["services"][name].get("command", [])) for name in COMMANDS}
    assert {**containers, "web": " ".join(yaml.safe_load(DOCKERFILE.rpartition("CMD ")[2]))} == COMMANDS


def test_every_unit_tells_only_the_first_process_to_stop_and_leaves_it_the_time_it_may_take():
    for unit in UNITS:
        text = unit.read_text()
        assert "KillMode=mixed" in text, unit.name
        least = 11 if "scheduler" in unit.name else 26
        assert int(re.search(r"TimeoutStopSec=(\d+)", text)[1]) >= least, unit.name
        assert "RestartPreventExitStatus=78" in text, unit.name
    assert all(COMPOSE["services"][name]["stop_grace_period"] == "30s" for name in COMMANDS)


def test_no_unit_is_given_up_by_systemd_after_an_outage_however_often_it_failed_meanwhile():
    for unit in UNITS:
        limits = unit.read_text().partition("[Service]")[0]
        assert "StartLimitIntervalSec=0" in limits, unit.name
        assert "Restart=always" in unit.read_text(), unit.name


def test_containers_are_given_only_settings_that_exist():
    known = {name.upper() for name in Settings.model_fields} | OTHERS
    for name, service in COMPOSE["services"].items():
        assert set(service.get("environment", {})) <= known, name


def test_the_image_holds_every_file_it_is_built_from():
    copied = [word for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.M) for word in line.split()[:-1]]
    assert {"app", "workers", "migrations", "wsgi.py", "gunicorn.conf.py"} <= set(copied)
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_every_block_of_the_guides_runs_or_says_what_it_needs():
    blocks = [block for guide in sorted((ROOT / "docs").glob("*.md")) for block in read_blocks(guide)]
    assert sum(block.runs for block in blocks) > 10
    assert unexcused(blocks) == []


def test_every_file_that_a_guide_names_exists():
    for guide in (ROOT / "docs").glob("*.md"):
        named = re.findall(r"`((?:app|deploy|docs|tests|workers|migrations|sandbox)/[\w./@-]+)`", guide.read_text())
        assert [place for place in named if not (ROOT / place).exists()] == [], guide.name


def test_a_block_without_excuse_is_found_and_one_that_fails_in_the_middle_fails(tmp_path):
    guide = tmp_path / "guide.md"
    guide.write_text(
        "a\n\n```sh\nno\n```\n\n(not run here: needs luck)\n```sh\nmaybe\n```\n\n  ```sh run\n  false\n  true\n  ```\n"
    )
    silent, excused, running = blocks = list(read_blocks(guide))
    assert unexcused(blocks) == ["guide.md:3"]
    assert excused.commands == "maybe"
    assert running == Block(guide, 12, "false\ntrue", runs=True, excuse=False)
    assert silent.commands == "no"
    assert run_block(running, {"PATH": "/usr/bin:/bin"}).returncode == 1


def _start_of(unit: Path) -> str:
    found = re.search(r"^ExecStart=\S*/(\S+.*)$", unit.read_text(), re.M)
    assert found is not None, unit.name
    return found[1]
