# The image for docker/mpijob.yaml: gpubp with MPI, and the ssh by which one pod starts ranks in the others.
#   docker build -f docker/Dockerfile -t gpubp:mpi --build-arg EXTRAS=cpu,mpi .        # or cuda13,mpi
#   docker build -f docker/mpijob.Dockerfile -t registry.example/gpubp:mpijob .
ARG BASE=gpubp:mpi
# hadolint ignore=DL3006
FROM ${BASE}
USER 0
# ssh wants an account with a shell and a home that is nobody's to write. Debian's own host keys would be the same in
# every copy of this image: they go.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends openssh-client openssh-server \
 && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* \
 && usermod --shell /bin/sh --home /home/gpubp gpubp \
 && install -d /home/gpubp /home/gpubp/.ssh
# The operator gives all pods of a job one key of their own, in /home/gpubp/.ssh. It is the key of the server, of the
# client and of those let in, so that each pod knows the others. Nothing here needs root or a capability.
RUN printf '%s\n' \
      'Port 2222' \
      'HostKey /home/gpubp/.ssh/id_rsa' \
      'AuthenticationMethods publickey' \
      'StrictModes no' \
      'UsePAM no' \
      'PidFile none' > /etc/ssh/sshd_config.d/gpubp.conf \
 && printf '%s\n' \
      'Host *' \
      '  Port 2222' \
      '  StrictHostKeyChecking yes' \
      '  UserKnownHostsFile none' \
      '  KnownHostsCommand /usr/bin/sed "s/^/* /" /home/gpubp/.ssh/id_rsa.pub' \
      '  LogLevel ERROR' > /etc/ssh/ssh_config.d/gpubp.conf
USER 10001:10001
