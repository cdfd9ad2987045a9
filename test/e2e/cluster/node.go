package cluster

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/secretmanager-io/secretmanager/test/e2e/images"
	"github.com/secretmanager-io/secretmanager/test/e2e/step"
)

// nodeName is the name of the node's container.
const nodeName = Name + "-control-plane"

//go:embed kind.yaml
var kindConfig string

// createNode creates the node, or uses the existing one.
func (c *Cluster) createNode(ctx context.Context) error {
	if c.options.Reuse && c.healthy(ctx) {
		step.Logf("the cluster that stands already is used")
		return nil
	}
	if err := c.deleteNode(ctx); err != nil {
		return err
	}
	return step.Do(ctx, "creating the node", func(ctx context.Context) error {
		config, err := c.writeConfig()
		if err != nil {
			return fmt.Errorf("writing the configuration for kind: %w", err)
		}
		// --retain keeps a node that does not start, so that its logs can be read.
		cmd := c.kindCommand(ctx, "create", "cluster", "--config", config, "--retain", "--wait", "0s")
		if _, err := step.Run(cmd); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if strings.Contains(err.Error(), "unable to apply caps") {
				return fmt.Errorf("%w\nthe Docker engine cannot run privileged containers, since root has "+
					"no CAP_SYS_RESOURCE here; stop it, and the tests start one that can", err)
			}
			return fmt.Errorf("%w\n%s", err, c.nodeLogs(ctx))
		}
		return nil
	})
}

// writeConfig writes kind's configuration and returns its path.
func (c *Cluster) writeConfig() (string, error) {
	t, err := template.New("kind.yaml").Parse(kindConfig)
	if err != nil {
		return "", err
	}
	var text bytes.Buffer
	err = t.Execute(&text, map[string]any{"Name": Name, "Image": c.Images.Node, "VaultPort": vaultNodePort})
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(c.Kubeconfig)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "kind.yaml")
	return path, os.WriteFile(path, text.Bytes(), 0o644)
}

// deleteNode deletes the cluster, if there is one.
func (c *Cluster) deleteNode(ctx context.Context) error {
	nodes, err := c.docker.Run(ctx, "ps", "--all", "--quiet", "--filter", "label=io.x-k8s.kind.cluster="+Name)
	if err != nil {
		return fmt.Errorf("looking for a cluster: %w", err)
	}
	if nodes == "" {
		return nil
	}
	return step.Do(ctx, "deleting the cluster", func(ctx context.Context) error {
		_, err := step.Run(c.kindCommand(ctx, "delete", "cluster", "--name", Name))
		return err
	})
}

// kindCommand returns a kind command. It writes to our kubeconfig only.
func (c *Cluster) kindCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := step.Command(ctx, c.kind, args...)
	cmd.Env = append(c.docker.Environ(), "KUBECONFIG="+c.Kubeconfig, "KIND_EXPERIMENTAL_PROVIDER=docker")
	return cmd
}

// healthy reports whether a node with the image exists, and its API server responds.
func (c *Cluster) healthy(ctx context.Context) bool {
	image, err := c.docker.Run(ctx, "inspect", "--format", "{{.Config.Image}}", nodeName)
	if err != nil || c.Images.Node != "" && image != c.Images.Node {
		return false
	}
	if _, err := step.Run(c.kindCommand(ctx, "export", "kubeconfig", "--name", Name)); err != nil {
		return false
	}
	if err := c.connect(); err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	_, err = c.Client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
	return err == nil
}

// connect makes the clients.
func (c *Cluster) connect() error {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return err
	}
	// Tests poll often; client-go's default of 5 requests a second would slow them down.
	config.QPS, config.Burst = 100, 200
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	c.Dynamic, err = dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	c.Config, c.Client = config, client
	c.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	return nil
}

// loadImages loads the images from the Docker engine into the node, except those that an
// existing node has. The name of the product's image does not identify its content.
func (c *Cluster) loadImages(ctx context.Context) error {
	list, err := c.docker.Run(ctx, "exec", nodeName, "ctr", "--namespace", "k8s.io", "images", "ls", "--quiet")
	if err != nil {
		return fmt.Errorf("listing the node's images: %w", err)
	}
	has := strings.Fields(list)
	load := slices.DeleteFunc(slices.Clone(c.Images.Load), func(name string) bool {
		return name != c.Images.Product && slices.Contains(has, library+name)
	})
	if err := c.LoadImages(ctx, load...); err != nil || c.Images.App == images.StockApp {
		return err
	}
	_, err = c.docker.Run(ctx, "exec", nodeName, "ctr", "--namespace", "k8s.io", "images", "tag", "--force",
		library+c.Images.App, library+images.StockApp)
	return err
}

// library is the prefix that containerd adds to names without a registry.
const library = "docker.io/library/"

// LoadImages loads additional images from the Docker engine into the node. Pods use them
// with imagePullPolicy Never or IfNotPresent.
func (c *Cluster) LoadImages(ctx context.Context, names ...string) error {
	if len(names) == 0 {
		return nil
	}
	args := append([]string{"load", "docker-image", "--name", Name}, names...)
	_, err := step.Run(c.kindCommand(ctx, args...))
	return err
}

// NodeAddress returns the node's address, which its pods can reach.
func (c *Cluster) NodeAddress(ctx context.Context) (string, error) {
	node, err := c.Client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	for _, address := range node.Status.Addresses {
		if address.Type == corev1.NodeInternalIP {
			return address.Address, nil
		}
	}
	return "", fmt.Errorf("node %s has no address of its own", nodeName)
}

// OnNode returns a command that runs on the node, outside of pods. Its standard input
// ends with that of the returned command.
func (c *Cluster) OnNode(ctx context.Context, command ...string) *exec.Cmd {
	return c.docker.Command(ctx, append([]string{"exec", "--interactive", nodeName}, command...)...)
}

// CopyToNode copies a program to the node, to a directory that is not a mount, because
// docker cp does not write to mounts.
func (c *Cluster) CopyToNode(ctx context.Context, program string) (string, error) {
	path := "/usr/local/bin/" + filepath.Base(program)
	_, err := c.docker.Run(ctx, "cp", program, nodeName+":"+path)
	return path, err
}

// waitNode waits until pods can run and find each other by name.
func (c *Cluster) waitNode(ctx context.Context) error {
	if err := c.waitNodeReady(ctx); err != nil {
		return err
	}
	return c.WaitDeployment(ctx, "kube-system", "coredns")
}

// nodeLogs returns the last logs of the node's services, for a node whose API server does not respond.
func (c *Cluster) nodeLogs(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var text string
	for _, unit := range []string{"containerd", "kubelet"} {
		out, err := c.docker.Run(ctx, "exec", nodeName, "journalctl", "--no-pager", "--unit", unit, "--lines", "30")
		if err != nil {
			out = err.Error()
		}
		text += fmt.Sprintf("--- %s on the node\n%s\n", unit, out)
	}
	return text
}
