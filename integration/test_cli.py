"""The commands: exit codes, outputs, and that validate opens no socket."""
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

from sidecar import PROGRAM, Sidecar, cluster, free_port, route, run, wait_until

COMMANDS = ["run", "validate", "ready", "drain", "wait", "ctl"]
BODY = route("all", respond={"body": "hello"})


@pytest.fixture(scope="module")
def sidecar():
    with Sidecar(BODY) as one:
        yield one


@pytest.fixture
def written():
    """A valid file that nobody runs."""
    one = Sidecar(BODY)
    one.write()
    return one


def admin(sidecar):
    return f"127.0.0.1:{sidecar.admin_port}"


# ---- help and version ----------------------------------------------------------------------------------------------------------


def test_version():
    result = run("--version")
    assert result.returncode == 0
    assert re.fullmatch(r"(outrider )?[0-9]+\.[0-9]+\.[0-9]+\S*\n", result.stdout), result


def test_help_names_every_command():
    for arguments in (["--help"], ["-h"]):
        result = run(*arguments)
        assert result.returncode == 0 and not result.stderr
        for command in COMMANDS:
            assert re.search(rf"^\s+{command}\s+\S", result.stdout, re.M), command


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command):
    result = run(command, "--help")
    assert result.returncode == 0 and not result.stderr
    assert ("--endpoints" if command == "ctl" else "--config") in result.stdout


@pytest.mark.parametrize("arguments", [
    [], ["frobnicate"], ["run"], ["validate"], ["validate", "-c"], ["run", "--fast", "-c", "x"], ["ready", "extra"],
    ["ready", "--timeout", "soon"], ["ready", "--timeout", "-1s"], ["drain", "--wait", "5"], ["wait", "--timeout", "x"],
    ["ready", "--admin", "nonsense"], ["drain", "--admin", "127.0.0.1:0"], ["wait", "--admin", "127.0.0.1:99999"],
    ["ready", "--admin", "127.0.0.1:1", "-c", "x"], ["run", "-c", "a", "run", "-c", "b"]])
def test_usage_errors_exit_with_2_and_say_why(arguments):
    result = run(*arguments)
    assert result.returncode == 2, result
    assert result.stderr.strip() and not result.stdout, result


def test_a_file_of_the_other_kind_names_the_other_command(written, tmp_path):
    result = run("control", "-c", written.config)
    assert (result.returncode, result.stderr) == (
        1, f"outrider: {written.config} is a sidecar's; start it with: outrider run -c {written.config}\n")
    node = tmp_path / "control.toml"
    node.write_text(f'[control]\ndata = "{tmp_path}/data"\n')
    result = run("run", "-c", node)
    assert (result.returncode, result.stderr) == (
        1, f"outrider: {node} is of a node of the control plane; start it with: outrider control -c {node}\n")


# ---- validate ------------------------------------------------------------------------------------------------------------------


def test_validate_says_ok(written):
    result = run("validate", "-c", written.config)
    assert (result.returncode, result.stdout, result.stderr) == (0, "OK\n", "")


def test_validate_prints_every_error_and_no_ok(written):
    written.write(written.text().replace("respond", "repsond").replace("workers = 1", "workers = -1"))
    result = run("validate", "-c", written.config)
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert len(lines) == 3 and all(re.match(r".*outrider\.toml:\d+:\d+: \S+: \S", line) for line in lines), result
    assert "OK" not in result.stdout


def test_warnings_do_not_fail_and_stay_off_stdout(written):
    written.write(written.text() + route("hidden", match={"path": "/x"}, respond={"body": "never"}))
    result = run("validate", "-c", written.config)
    assert (result.returncode, result.stdout) == (0, "OK\n")
    assert re.search(r"outrider\.toml:\d+:\d+: warning: route\[2\]: .*never taken", result.stderr)


def test_validate_of_what_cannot_be_read(written):
    for path in (written.directory / "absent.toml", written.directory, "/dev/null/x"):
        result = run("validate", "-c", path)
        assert result.returncode == 1, result
        assert (result.stdout + result.stderr).strip()


def test_validate_opens_no_socket(written):
    """Of a file that needs them all: listeners, admin, access log, DNS."""
    written.body += cluster("named", "name.invalid:80") + cluster("srv", discover="dns-srv:_http._tcp.name.invalid")
    written.write()
    if not shutil.which("strace"):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", written.port))
            taken.listen()
            assert run("validate", "-c", written.config).returncode == 0
        assert not written.access_log.exists()
        return
    trace = written.directory / "trace"
    result = subprocess.run(["strace", "-f", "-e", "trace=socket,bind,listen,connect,openat", "-o", trace, PROGRAM, "validate",
                             "-c", written.config], capture_output=True, text=True, timeout=60,
                            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})  # LeakSanitizer does not work under ptrace
    if "ptrace" in result.stderr and result.returncode != 0:
        pytest.skip(f"strace may not trace here: {result.stderr.strip()[:200]}")
    assert result.stdout == "OK\n", result
    calls = trace.read_text()
    assert "outrider.toml" in calls, "the trace works"
    assert not re.search(r"\b(socket|bind|listen|connect)\(", calls), calls
    assert "access.log" not in calls


# ---- ready ---------------------------------------------------------------------------------------------------------------------


def test_ready(sidecar):
    for arguments in (["--admin", admin(sidecar)], ["-c", sidecar.config], ["--admin", f"localhost:{sidecar.admin_port}"]):
        result = run("ready", *arguments)
        assert (result.returncode, result.stdout, result.stderr) == (0, "ready\n", ""), result


def test_not_ready(sidecar):
    sidecar.admin("/health/fail", "POST")
    try:
        result = run("ready", "--admin", admin(sidecar))
        assert (result.returncode, result.stdout) == (1, "") and "operator" in result.stderr
    finally:
        sidecar.admin("/health/ok", "POST")


def test_ready_without_a_sidecar():
    port = free_port()
    result = run("ready", "--admin", f"127.0.0.1:{port}")
    assert result.returncode == 1
    assert f"127.0.0.1:{port}" in result.stderr and "refused" in result.stderr, result


def test_ready_gives_up_in_time():
    """Something that accepts and never answers, and an answer that never ends."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        began = time.monotonic()
        result = run("ready", "--admin", f"127.0.0.1:{mute.getsockname()[1]}", "--timeout", "500ms")
        assert result.returncode == 1 and result.stderr.strip()
        assert 0.45 < time.monotonic() - began < 5


def test_ready_of_something_that_is_no_sidecar():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def answer():
            peer, _ = other.accept()
            peer.recv(1000)
            peer.sendall(b"220 mail.example ESMTP\r\n")
            peer.close()

        threading.Thread(target=answer, daemon=True).start()
        result = run("ready", "--admin", f"127.0.0.1:{other.getsockname()[1]}")
        assert result.returncode == 1 and result.stderr.strip(), result


def test_ready_with_a_bad_configuration(written):
    written.write("nonsense")
    result = run("ready", "-c", written.config)
    assert result.returncode == 1 and "outrider.toml" in result.stderr


# ---- drain ---------------------------------------------------------------------------------------------------------------------


def test_drain_and_wait_for_the_end():
    with Sidecar(BODY, drain={"delay": "500ms", "timeout": "5s"}) as sidecar:
        began = time.monotonic()
        result = run("drain", "--admin", admin(sidecar), "--wait", "10s")
        assert result.returncode == 0, result
        assert time.monotonic() - began > 0.45, "it returned only after the end"
        assert sidecar.wait() == 0


def test_drain_returns_at_once_without_wait():
    with Sidecar(BODY, drain={"delay": "1s", "timeout": "5s"}) as sidecar:
        assert run("drain", "-c", sidecar.config).returncode == 0
        assert sidecar.admin("/ready").status == 503
        assert run("ready", "-c", sidecar.config).returncode == 1
        sidecar.signal(signal.SIGTERM)  # the second demand: at once
        assert sidecar.wait() == 0


def test_drain_that_takes_too_long():
    with Sidecar(BODY, drain={"delay": "20s", "timeout": "5s"}) as sidecar:
        result = run("drain", "-c", sidecar.config, "--wait", "300ms")
        assert result.returncode == 1 and "still running" in result.stderr
        sidecar.signal(signal.SIGINT)
        assert sidecar.wait() == 0


def test_drain_without_a_sidecar():
    result = run("drain", "--admin", f"127.0.0.1:{free_port()}", "--wait", "1s")
    assert result.returncode == 1 and "refused" in result.stderr


# ---- wait ----------------------------------------------------------------------------------------------------------------------


def test_wait_becomes_the_command(sidecar):
    """exec: same process, its arguments untouched, its exit code ours."""
    script = "echo $$ \"$@\"; exit 7"
    child = subprocess.Popen([PROGRAM, "wait", "--admin", admin(sidecar), "--", "sh", "-c", script, "sh", "--admin", "a b", "-x"],
                             stdout=subprocess.PIPE, text=True)
    out, _ = child.communicate(timeout=20)
    assert out == f"{child.pid} --admin a b -x\n"
    assert child.returncode == 7


def test_the_command_of_wait_gets_ordinary_signals(sidecar):
    """No signal that the sidecar ignores or blocks is inherited."""
    result = run("wait", "--admin", admin(sidecar), "--", "grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status",
                 restore_signals=True)
    assert result.returncode == 0
    masks = [int(line.split()[1], 16) for line in result.stdout.splitlines()]
    assert masks == [0, 0], result.stdout
    fds = run("wait", "--admin", admin(sidecar), "--", "ls", "/proc/self/fd")
    assert len(fds.stdout.split()) <= 4, f"descriptors leak into the command: {fds.stdout}"


def test_wait_waits(written):
    child = subprocess.Popen([PROGRAM, "wait", "-c", written.config, "--", "echo", "now"], stdout=subprocess.PIPE, text=True)
    try:
        connections = 0
        with socket.socket() as not_yet:  # it asks before there is a sidecar
            not_yet.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            not_yet.bind(("127.0.0.1", written.admin_port))
            not_yet.listen()
            not_yet.settimeout(10)
            while connections < 2:
                peer, _ = not_yet.accept()
                connections += 1
                peer.sendall(b"HTTP/1.1 503 No\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnot\n")
                peer.close()
        assert child.poll() is None
        written.choose_ports = lambda: None
        with written:
            out, _ = child.communicate(timeout=20)
            assert (out, child.returncode) == ("now\n", 0)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_wait_gives_up():
    port = free_port()
    began = time.monotonic()
    result = run("wait", "--admin", f"127.0.0.1:{port}", "--timeout", "400ms", "--", "echo", "never")
    assert result.returncode == 1 and result.stdout == ""
    assert "not ready after 400ms" in result.stderr
    assert 0.35 < time.monotonic() - began < 5


def test_wait_without_a_command(sidecar):
    assert run("wait", "--admin", admin(sidecar)).returncode == 0


def test_wait_for_a_command_that_does_not_exist(sidecar):
    result = run("wait", "--admin", admin(sidecar), "--", "no-such-command-anywhere")
    assert result.returncode == 1
    assert "no-such-command-anywhere" in result.stderr


# ---- run -----------------------------------------------------------------------------------------------------------------------


def test_run_writes_its_access_log_to_stdout_and_everything_else_to_stderr(written):
    written.log_keys["access"] = "stdout"
    written.write()
    child = subprocess.Popen(written.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(written.ready, 15, "the start")
        assert written.get("/seen").status == 200
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=20)
        assert child.returncode == 0
        assert len(out.splitlines()) == 1 and '"path":"/seen"' in out
        assert "listener inbound on" in err and "serves with 1 worker," in err
    finally:
        child.kill()
        child.wait()


def test_run_with_port_0_says_which_port_it_took(written):
    text = written.text().replace(f":{written.port}", ":0")
    written.write(text)
    child = subprocess.Popen(written.command(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(written.ready, 15, "the start")
        address = written.json("/listeners")["listeners"][0]["address"]
        assert written.get(port=int(address.rpartition(":")[2])).body == b"hello"
        child.send_signal(signal.SIGTERM)
        assert child.wait(15) == 0
    finally:
        child.kill()
        child.wait()
