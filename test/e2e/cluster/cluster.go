// Package cluster creates the cluster of the end-to-end tests: kind nodes with a real
// kubelet, the Secrets Store CSI driver and a Vault.
//
// Start creates it in steps and reports how long each took:
//
//  1. a Docker engine (package engine),
//  2. the images, pulled or built (package images),
//  3. the nodes, with `kind create cluster`,
//  4. the driver, from its released manifests, and Vault.
//
// If images are pulled, the cluster has the images that users run. If they are built, it
// has the same programs. The tests cannot distinguish the two.
//
// Everything waits for conditions, and an error reports the last state. After a failure,
// Dump prints the most useful information.
//
// The kubeconfig is in the repository's .cache/. The user's own is not changed.
package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"github.com/secretmanager-io/secretmanager/test/e2e/engine"
	"github.com/secretmanager-io/secretmanager/test/e2e/images"
	"github.com/secretmanager-io/secretmanager/test/e2e/step"
	"github.com/secretmanager-io/secretmanager/test/programs"
)

// Name is the cluster's name, and that of its kubectl context after "kind-".
const Name = "secretmanager-e2e"

// Options determine how a cluster is started and stopped.
type Options struct {
	// Images is the source of the images. Empty is images.Auto.
	Images images.Source
	// Keep leaves the cluster and the Docker engine running when Stop is called.
	Keep bool
	// Nodes is the number of nodes: one is the control plane, the others are workers. 0 is 1.
	Nodes int
	// Reuse uses an existing cluster, if it is healthy and has the same node image.
	// Otherwise, and without Reuse, an existing cluster is deleted.
	Reuse bool
}

// FromEnvironment returns the options that the variables KEEP=1, REUSE=1, NODES=1 to 9, and
// E2E_IMAGES=auto|pull|build set. KEEP implies REUSE.
func FromEnvironment() (Options, error) {
	nodes, err := strconv.Atoi(cmp.Or(os.Getenv("NODES"), "1"))
	if err != nil || nodes < 1 || nodes > 9 {
		return Options{}, fmt.Errorf("NODES=%s: must be a number from 1 to 9", os.Getenv("NODES"))
	}
	set := func(name string) bool { value := os.Getenv(name); return value != "" && value != "0" }
	return Options{
		Images: images.Source(os.Getenv("E2E_IMAGES")),
		Keep:   set("KEEP"),
		Nodes:  nodes,
		Reuse:  set("REUSE") || set("KEEP"),
	}, nil
}

// A Cluster is a running cluster. Its methods may be called concurrently.
type Cluster struct {
	Client  kubernetes.Interface
	Dynamic dynamic.Interface
	Config  *rest.Config
	// Kubeconfig is the path of the kubeconfig file.
	Kubeconfig string
	Images     *images.Set
	Vault      Vault

	options Options
	root    string // directory of the repository
	docker  *engine.Engine
	kind    string // path of the kind program
	mapper  *restmapper.DeferredDiscoveryRESTMapper
}

// Start creates the cluster. After an error it deletes everything, unless options.Keep
// is set. The caller ends it with Stop.
func Start(ctx context.Context, options Options) (c *Cluster, err error) {
	start := time.Now()
	root, err := programs.Root()
	if err != nil {
		return nil, err
	}
	c = &Cluster{options: options, root: root, Kubeconfig: kubeconfigPath(root)}
	defer func() {
		if err == nil {
			return
		}
		if c.Client != nil {
			c.Dump(context.WithoutCancel(ctx), os.Stderr)
		}
		err = errors.Join(err, c.Stop(context.WithoutCancel(ctx)))
		c = nil
	}()

	if c.docker, err = engine.Ensure(ctx); err != nil {
		return c, fmt.Errorf("getting a Docker engine: %w", err)
	}
	if c.kind, err = programs.Path(ctx, "kind"); err != nil {
		return c, err
	}
	if c.Images, err = images.Ensure(ctx, c.docker, options.Images, root); err != nil {
		return c, fmt.Errorf("getting images: %w", err)
	}
	if err := c.createNodes(ctx); err != nil {
		return c, err
	}
	if err := c.connect(); err != nil {
		return c, fmt.Errorf("connecting to the cluster: %w", err)
	}
	for _, s := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"loading images into the nodes", c.loadImages},
		{"connecting the nodes", c.ConnectNodes},
		{"waiting for the nodes and DNS", c.waitNodes},
		{"installing the Secrets Store CSI driver and Vault", c.install},
	} {
		if err := step.Do(ctx, s.name, s.run); err != nil {
			return c, err
		}
	}
	step.Logf("the cluster is up, %.0f s in all", time.Since(start).Seconds())
	return c, nil
}

// Stop deletes the cluster, and stops the Docker engine if this package started it. With
// Options.Keep it prints how to use the cluster and leaves it running.
func (c *Cluster) Stop(ctx context.Context) error {
	if c.options.Keep {
		if c.docker != nil {
			c.explain()
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if c.docker == nil {
		return nil
	}
	var failed error
	if c.kind != "" {
		failed = c.deleteNodes(ctx)
	}
	return errors.Join(failed, c.docker.StopStarted(ctx))
}

// Clean removes what earlier runs did not: the cluster, the images that were built,
// and a Docker engine that this package started. It keeps .cache/.
func Clean(ctx context.Context) error {
	root, err := programs.Root()
	if err != nil {
		return err
	}
	c := &Cluster{root: root, Kubeconfig: kubeconfigPath(root)}
	if c.docker, err = engine.Ensure(ctx); err != nil {
		return err
	}
	if c.kind, err = programs.Path(ctx, "kind"); err != nil {
		return err
	}
	if err := c.deleteNodes(ctx); err != nil {
		return err
	}
	return errors.Join(images.Remove(ctx, c.docker), c.docker.StopStarted(ctx))
}

func kubeconfigPath(root string) string {
	return filepath.Join(root, ".cache", "e2e", "kubeconfig")
}

func (c *Cluster) explain() {
	path := filepath.Join(c.root, ".cache", "e2e", "env")
	if c.Vault.Address != "" {
		if err := c.WriteEnvironment(path); err != nil {
			step.Logf("%v", err)
		}
	}
	step.Logf("the cluster %s stays. To use it:", Name)
	step.Logf("  . %s", path)
	step.Logf("  docker exec -it %s bash", ControlPlane)
	step.Logf("To remove it: make e2e-clean")
}
