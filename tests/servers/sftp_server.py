"""An SFTP server for the tests: ``python sftp_server.py <port> <folder> <user> <password>``."""

import asyncio
import sys

import asyncssh

PORT, FOLDER, USER, PASSWORD = sys.argv[1:]


class Login(asyncssh.SSHServer):
    """Lets one user in, by password."""

    def password_auth_supported(self):
        """Tell that a password is what we ask for."""
        return True

    def validate_password(self, username, password):
        """Tell whether it is the right one."""
        return (username, password) == (USER, PASSWORD)


def serve(channel):
    """Return a server that shows nothing above the folder."""
    return asyncssh.SFTPServer(channel, chroot=FOLDER)


async def main():
    """Serve until we are killed."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.create_server(
        Login, "127.0.0.1", int(PORT), server_host_keys=[key], sftp_factory=serve, allow_scp=False
    )
    await server.wait_closed()


asyncio.run(main())
