"""Two hosts in one machine: network namespaces with a cable between them, each with its own address."""

import os
import shutil
import subprocess
from contextlib import contextmanager

INTERFACE = "eth0"
ADDRESSES = ("10.77.0.1", "10.77.0.2")


@contextmanager
def two_hosts():
    """Per host the command that leads into it and its options for torchrun; nothing where the machine does not allow it."""
    ip = shutil.which("ip", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    names = [f"am{os.getpid()}-{host}" for host in range(2)]
    try:
        yield _connected(ip, names) if ip else ()
    finally:
        for name in names if ip else ():
            subprocess.run([ip, "netns", "delete", name], capture_output=True)


def _connected(ip, names):
    commands = [["netns", "add", name] for name in names]
    commands.append(
        ["link", "add", INTERFACE, "netns", names[0], "type", "veth", "peer", "name", INTERFACE, "netns", names[1]]
    )
    for name, address in zip(names, ADDRESSES, strict=True):
        commands.append(["-n", name, "address", "add", f"{address}/24", "dev", INTERFACE])
        commands += [["-n", name, "link", "set", interface, "up"] for interface in (INTERFACE, "lo")]
        commands.append(["netns", "exec", name, "true"])
    for command in commands:
        if subprocess.run([ip, *command], capture_output=True).returncode:
            return ()
    rendezvous = ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{ADDRESSES[0]}:29400", "--rdzv-id", "two"]
    return [
        (
            [ip, "netns", "exec", name, "env", f"GLOO_SOCKET_IFNAME={INTERFACE}"],
            [*rendezvous, "--local-addr", address, "--rdzv-conf", f"is_host={str(address == ADDRESSES[0]).lower()}"],
        )
        for name, address in zip(names, ADDRESSES, strict=True)
    ]
