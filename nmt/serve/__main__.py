"""python -m nmt.serve: a page to try trained models on, and the same as JSON."""

import ipaddress
import logging

from nmt.cli.compose import run_command
from nmt.cli.configs import ServeConfig
from nmt.runtime.device import resolve_device
from nmt.runtime.process import setup_process
from nmt.serve.models import load

log = logging.getLogger("nmt.serve")


def main(config: ServeConfig, overrides: list[str]) -> None:
    """Serve until it is stopped."""
    setup_process(config.num_threads)
    try:
        from nmt.serve.app import make_app
        from nmt.serve.model_thread import ModelWorker
        from nmt.serve.server import listen, make_server
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("nmt"):
            raise
        raise ValueError(
            f"{error.name} is missing, which the server needs: pip install 'nmt-attention[serve]'"
        ) from None
    listening = listen(config.host, config.port)
    with listening:
        served = load(config, overrides, resolve_device(config.device))
        worker = ModelWorker(config.queue_size, config.timeout)
        host, port = listening.getsockname()[:2]
        if not ipaddress.ip_address(host).is_loopback:
            log.warning(
                "host=%s: anybody who can reach this machine can use the models; nobody is asked for a name", host
            )
        log.info("http://%s:%d/ – stop with Ctrl-C", f"[{host}]" if ":" in host else host, port)
        try:
            app = make_app(served, config, worker)
            make_server(app, config.timeout, worker.give_up).run(sockets=[listening])
        finally:
            worker.close()


if __name__ == "__main__":
    run_command(main, ServeConfig, "serve")
