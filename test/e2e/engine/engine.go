// Package engine finds, installs and starts a Docker engine, which holds the
// nodes of the test cluster.
//
// A running engine is used as it is. Where there is none and we are root, the
// engine is started: by systemd, or without it by ourselves, with its pid, log
// and configuration in a directory below /run, so that a later run can find and stop
// it. Images stay in the engine's usual directory, so a new start costs seconds.
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

// An Engine is a running Docker engine and the client program that talks to it.
type Engine struct {
	client string // path of the docker command
}

// Ensure returns a running engine. As root on Debian it installs what is missing.
func Ensure(ctx context.Context) (*Engine, error) {
	client, err := findClient(ctx)
	// Debian 12 has the client, with BuildKit, in docker.io; later ones have three packages.
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
	if e.answers(ctx) == nil {
		return e, nil
	}
	if err := e.start(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

// Environ returns the environment for programs that call docker themselves: ours,
// with the chosen client first.
func (e *Engine) Environ() []string {
	path := filepath.Dir(e.client) + string(os.PathListSeparator) + os.Getenv("PATH")
	return append(os.Environ(), "PATH="+path, "DOCKER_BUILDKIT=1")
}

// Command returns a docker command that is yet to be run.
func (e *Engine) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := step.Command(ctx, e.client, args...)
	cmd.Env = e.Environ()
	return cmd
}

// Run runs a docker command and returns what it printed.
func (e *Engine) Run(ctx context.Context, args ...string) (string, error) {
	return step.Run(e.Command(ctx, args...))
}

// HasImage reports whether the engine holds the image.
func (e *Engine) HasImage(ctx context.Context, image string) bool {
	_, err := e.Run(ctx, "image", "inspect", "--format", "{{.Id}}", image)
	return err == nil
}

// Build builds the directory's Dockerfile into the named image. The builder is
// BuildKit, which leaves out stages that the target does not need.
func (e *Engine) Build(ctx context.Context, dir, image string, args ...string) error {
	all := append([]string{"build", "--progress=plain", "--tag", image}, args...)
	_, err := e.Run(ctx, append(all, dir)...)
	return err
}

// CanPull reports whether the engine reaches the public registry. The image that
// it tries is a small one; without a network the answer comes within seconds, or
// when the limit is over.
func (e *Engine) CanPull(ctx context.Context, image string, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, err := e.Run(ctx, "pull", "--quiet", image)
	return err == nil
}

func (e *Engine) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := e.Run(ctx, "info", "--format", "{{.ServerVersion}}")
	return err
}

// errNoClient means that no docker command is usable.
var errNoClient = errors.New("no usable docker command")

// findClient returns the first docker on the PATH that can build with BuildKit:
// up to version 22 that is part of the client, later it is a plugin, which need not
// be installed.
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
