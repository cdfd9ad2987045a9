package nodeimage

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/secretmanager-io/secretmanager/test/e2e/inputs"
	"github.com/secretmanager-io/secretmanager/test/e2e/step"
)

// suite is the Debian release in the node. Its containerd and systemd support both versions of cgroups.
const suite = "bookworm"

// packages are the packages that kind's own Dockerfile installs, and containerd, runc and the CNI plugins from Debian.
var packages = []string{
	"ca-certificates", "conntrack", "containerd", "containernetworking-plugins", "curl", "dbus",
	"ebtables", "ethtool", "iproute2", "iptables", "jq", "kmod", "libc-bin", "mount", "nftables",
	"procps", "runc", "socat", "systemd", "systemd-sysv", "util-linux",
}

// rootFileSystem returns the tar file with the node's root file system. It creates the file in the directory if it is
// missing. The name of the file depends only on the packages, so other changes do not cause a new one.
func rootFileSystem(ctx context.Context, dir string) (string, error) {
	h := inputs.New()
	h.Add("command", []byte(strings.Join(rootFileSystemCommand("OUT", nil), " ")))
	path := filepath.Join(dir, "root-"+h.Key()+".tar")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		if err := step.Install(ctx, "mmdebstrap, which makes a node's root file system,", "mmdebstrap"); err != nil {
			return "", err
		}
	}
	temporary := path + ".new"
	defer os.Remove(temporary)
	err := step.Do(ctx, "making the node's root file system", func(ctx context.Context) error {
		args := rootFileSystemCommand(temporary, mirror())
		_, err := step.Run(step.Command(ctx, args[0], args[1:]...))
		return err
	})
	if err != nil {
		return "", err
	}
	if err := os.Rename(temporary, path); err != nil {
		return "", fmt.Errorf("keeping the root file system: %w", err)
	}
	return path, nil
}

func rootFileSystemCommand(out string, mirror []string) []string {
	return append([]string{
		"mmdebstrap", "--variant=minbase", "--format=tar",
		`--aptopt=Acquire::Languages "none"`,
		"--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
		"--include=" + strings.Join(packages, ","),
		suite, out,
	}, mirror...)
}

// mirror returns the machine's list of package sources if it is for the same release, because it may name a mirror that
// is nearer, or the only reachable one. Otherwise mmdebstrap uses the mirror of Debian.
func mirror() []string {
	for _, file := range []string{"/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"} {
		text, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(text), suite) {
			return []string{file}
		}
	}
	return nil
}
