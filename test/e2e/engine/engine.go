// Package engine finds, installs and starts a Docker engine, which runs the nodes of the test cluster.
//
// A running engine is used unchanged. If none runs and this process is root, the package starts one: with systemd, or
// without it as a process whose pid, log and configuration are in a directory below /run, so that a later run can find
// and stop it. Images stay in the engine's usual directory, so a new start takes seconds.
package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/secretmanager-io/secretmanager/test/e2e/step"
)

// An Engine is a running Docker engine and its client program.
type Engine struct {
	client string // path of the docker command
}

// Ensure returns a running engine. As root on Debian it installs what is missing.
func Ensure(ctx context.Context) (*Engine, error) {
	client, err := findClient(ctx)
	// Debian 12 has the client, with BuildKit, in docker.io; later releases have three packages.
	for _, packages := range [][]string{{"docker.io"}, {"docker-cli", "docker-buildx"}} {
		if !errors.Is(err, errNoClient) {
			break
		}
		if failed := step.Install(ctx, "a Docker engine and its command", packages...); failed != nil {
			return nil, errors.Join(err, failed)
		}
		client, err = findClient(ctx)
	}
	if err != nil {
		return nil, err
	}
	e := &Engine{client: client}
	if e.ping(ctx) == nil {
		return e, nil
	}
	if err := e.start(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

// Environ returns the environment for programs that call docker: that of this process, with the chosen client first in
// PATH.
func (e *Engine) Environ() []string {
	path := filepath.Dir(e.client) + string(os.PathListSeparator) + os.Getenv("PATH")
	return append(os.Environ(), "PATH="+path, "DOCKER_BUILDKIT=1")
}

// Command returns a docker command, which it does not start.
func (e *Engine) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := step.Command(ctx, e.client, args...)
	cmd.Env = e.Environ()
	return cmd
}

// Run runs a docker command and returns its output.
func (e *Engine) Run(ctx context.Context, args ...string) (string, error) {
	return step.Run(e.Command(ctx, args...))
}

// HasImage reports whether the engine has the image.
func (e *Engine) HasImage(ctx context.Context, image string) bool {
	_, err := e.Run(ctx, "image", "inspect", "--format", "{{.Id}}", image)
	return err == nil
}

// Build builds the named image from the directory's Dockerfile. It uses BuildKit, which skips stages that the target
// does not need.
func (e *Engine) Build(ctx context.Context, dir, image string, args ...string) error {
	all := append([]string{"build", "--progress=plain", "--tag", image}, args...)
	_, err := e.Run(ctx, append(all, dir)...)
	return err
}

// CanPull reports whether the engine reaches the public registry. It tries a small image. Without a network, the result
// is known within seconds, or after the limit.
func (e *Engine) CanPull(ctx context.Context, image string, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, err := e.Run(ctx, "pull", "--quiet", image)
	return err == nil
}

func (e *Engine) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := e.Run(ctx, "info", "--format", "{{.ServerVersion}}")
	return err
}

// errNoClient means that no docker command is usable.
var errNoClient = errors.New("no usable docker command")

// findClient returns the first docker on the PATH that can build with BuildKit: up to version 22 BuildKit is part of
// the client, later it is a plugin, which may be missing.
func findClient(ctx context.Context) (string, error) {
	reason := "docker is not installed"
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		client := filepath.Join(dir, "docker")
		if _, err := exec.LookPath(client); err != nil {
			continue
		}
		// The exit code also depends on whether the engine runs, which is irrelevant here.
		version, _ := step.Run(step.Command(ctx, client, "version", "--format", "{{.Client.Version}}"))
		major, _, _ := strings.Cut(version, ".")
		if n, err := strconv.Atoi(major); err == nil && n < 23 {
			return client, nil
		}
		if _, err := step.Run(step.Command(ctx, client, "buildx", "version")); err == nil {
			return client, nil
		}
		reason = client + " cannot build with BuildKit, because its plugin buildx is missing"
	}
	if err := ctx.Err(); err != nil {
		return "", context.Cause(ctx)
	}
	return "", fmt.Errorf("%w: %s", errNoClient, reason)
}
