"""python -m nmt.serve: a web page and a JSON API to try trained models on."""

import ipaddress
import logging

from nmt.cli.compose import run_command
from nmt.cli.configs import ServeConfig
from nmt.runtime.process import setup_process
from nmt.serve.models import load_models

log = logging.getLogger("nmt.serve")


def main(config: ServeConfig, overrides: list[str]) -> None:
    """Serve until interrupted."""
    setup_process(config.num_threads)
    try:
        from nmt.serve.app import make_app
        from nmt.serve.model_thread import ModelWorker
        from nmt.serve.server import listen, make_server
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("nmt"):
            raise
        message = f"{error.name} is missing, which the server needs: pip install 'nmt-attention[serve]'"
        raise ValueError(message) from None
    with listen(config.host, config.port) as listening:
        served = load_models(config, overrides)
        worker = ModelWorker(config.queue_size, config.timeout)
        host, port = listening.getsockname()[:2]
        if not ipaddress.ip_address(host).is_loopback:
            log.warning("host=%s: anybody who can reach this machine can use the models, without authentication", host)
        log.info("http://%s:%d/ – stop with Ctrl-C", f"[{host}]" if ":" in host else host, port)
        try:
            make_server(make_app(served, config, worker), config.timeout, worker.cancel_all).run(sockets=[listening])
        finally:
            worker.close()


if __name__ == "__main__":
    run_command(main, ServeConfig, "serve")
