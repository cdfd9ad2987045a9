package testenv

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"time"
)

// etcdSocket is the name of etcd's socket. In a private directory, it cannot conflict with
// another one, and no other user can reach it.
const etcdSocket = "etcd.sock"

// startEtcd starts an etcd in dir and waits until it accepts connections.
func startEtcd(ctx context.Context, dir, program string) (*process, error) {
	socket := filepath.Join(dir, etcdSocket)
	p, err := startProcess(dir, "etcd", program, []string{
		"--data-dir=" + filepath.Join(dir, "etcd"),
		"--listen-client-urls=unix://" + socket,
		// It must have a port. Only other members read it, and there are none.
		"--advertise-client-urls=http://127.0.0.1:1",
		// It is the only member, and connects to none. The kernel chooses the port.
		"--listen-peer-urls=http://127.0.0.1:0",
		// The data need not survive a power failure.
		"--unsafe-no-fsync",
		"--log-level=warn",
	}, nil, false)
	if err != nil {
		return nil, err
	}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		connection, err := net.Dial("unix", socket)
		if err == nil {
			connection.Close()
			return p, nil
		}
		select {
		case <-ticker.C:
		case <-p.exited:
			return nil, p.failure()
		case <-ctx.Done():
			p.stop()
			return nil, fmt.Errorf("waiting for etcd to serve: %w\n%s", context.Cause(ctx), p.tail())
		}
	}
}
