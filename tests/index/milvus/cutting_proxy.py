"""A TCP proxy on loopback that loses connections on demand."""
import contextlib
import socket
import threading
import time


class CuttingProxy:
    """Forwards to ``port``; see :meth:`cut`, :meth:`slow` and :meth:`down`."""

    def __init__(self, port):
        self.target = port
        self.cuts, self._delay = 0, 0.0
        self._left, self._what, self._again, self._stay_down = None, None, 0, False
        self._sockets, self._lock, self.silent = set(), threading.Lock(), False
        self._listen(0)

    @property
    def uri(self):
        return f'http://127.0.0.1:{self.port}'

    def _listen(self, port):
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(('127.0.0.1', port))
        self._listener.listen()
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self, after_bytes, what='request', times=1, stay_down=False):
        """Lose all connections once the client has sent so many bytes more: in the middle of the
        request, or (``what='reply'``) when the server begins to answer after it.
        """
        with self._lock:
            self._left, self._what, self._again = after_bytes, what, times
            self._every, self._stay_down = after_bytes, stay_down

    def down(self):
        """Refuse connections, and lose those that there are."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._lose()

    def slow(self, seconds):
        """Hold back whatever comes so long."""
        self._delay = seconds

    def up(self):
        """Accept connections at the same port again."""
        self._stay_down = False
        self._listen(self.port)

    def _lose(self):
        for one in list(self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._sockets.clear()

    def _accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(('127.0.0.1', self.target))
                self._sockets |= {client, server}
                for source, sink, sent in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._forward, args=(source, sink, sent),
                                     daemon=True).start()

    def _forward(self, source, sink, by_client):
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                if self._due(len(data), by_client):
                    self._happen()
                    return
                time.sleep(self._delay)
                if by_client or not self.silent:
                    sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _due(self, size, by_client):
        with self._lock:
            if self._left is None:
                return False
            if by_client:
                self._left -= size
            return self._left <= 0 and by_client == (self._what == 'request')

    def _happen(self):
        with self._lock:
            self.cuts += 1
            self._again -= 1
            self._left = self._every if self._again > 0 else None
        self.down() if self._stay_down else self._lose()
