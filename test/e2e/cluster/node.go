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

// ControlPlane is the name of the first node, and of its container.
const ControlPlane = Name + "-control-plane"

//go:embed kind.yaml
var kindConfig string

// nodes returns the number of nodes.
func (o Options) nodes() int { return max(o.Nodes, 1) }

// createNodes creates the nodes, or uses the existing ones.
func (c *Cluster) createNodes(ctx context.Context) error {
	if c.options.Reuse && c.healthy(ctx) {
		step.Logf("the cluster that stands already is used")
		return nil
	}
	if err := c.deleteNodes(ctx); err != nil {
		return err
	}
	return step.Do(ctx, "creating the nodes", func(ctx context.Context) error {
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
	err = t.Execute(&text, map[string]any{"Name": Name, "Image": c.Images.Node, "VaultPort": vaultNodePort,
		"Workers": c.options.nodes() - 1})
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

// deleteNodes deletes the cluster, if there is one.
func (c *Cluster) deleteNodes(ctx context.Context) error {
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

// healthy reports whether the cluster exists, with the image and the number of nodes, and its API server responds.
func (c *Cluster) healthy(ctx context.Context) bool {
	image, err := c.docker.Run(ctx, "inspect", "--format", "{{.Config.Image}}", ControlPlane)
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
	nodes, err := c.Nodes(ctx)
	return err == nil && len(nodes) == c.options.nodes()
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

// loadImages loads the images from the Docker engine into the nodes, except those that an
// existing cluster has. The name of the product's image does not identify its content.
func (c *Cluster) loadImages(ctx context.Context) error {
	list, err := c.docker.Run(ctx, "exec", ControlPlane, "ctr", "--namespace", "k8s.io", "images", "ls", "--quiet")
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
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return err
	}
	for _, node := range nodes {
		if _, err = c.docker.Run(ctx, "exec", node.Name, "ctr", "--namespace", "k8s.io", "images", "tag", "--force",
			library+c.Images.App, library+images.StockApp); err != nil {
			return err
		}
	}
	return nil
}

// library is the prefix that containerd adds to names without a registry.
const library = "docker.io/library/"

// LoadImages loads additional images from the Docker engine into every node. Pods use them
// with imagePullPolicy Never or IfNotPresent.
func (c *Cluster) LoadImages(ctx context.Context, names ...string) error {
	if len(names) == 0 {
		return nil
	}
	args := append([]string{"load", "docker-image", "--name", Name}, names...)
	_, err := step.Run(c.kindCommand(ctx, args...))
	return err
}

// Nodes returns the nodes.
func (c *Cluster) Nodes(ctx context.Context) ([]corev1.Node, error) {
	list, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// NodeAddress returns the address of a node, which pods can reach.
func (c *Cluster) NodeAddress(ctx context.Context, name string) (string, error) {
	node, err := c.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return internalAddress(node)
}

func internalAddress(node *corev1.Node) (string, error) {
	for _, address := range node.Status.Addresses {
		if address.Type == corev1.NodeInternalIP {
			return address.Address, nil
		}
	}
	return "", fmt.Errorf("node %s has no address of its own", node.Name)
}

// OnNode returns a command that runs on a node, outside of pods. Its standard input
// ends with that of the returned command.
func (c *Cluster) OnNode(ctx context.Context, node string, command ...string) *exec.Cmd {
	return c.docker.Command(ctx, append([]string{"exec", "--interactive", node}, command...)...)
}

// CopyToNodes copies a program to every node, to a directory that is not a mount, because
// docker cp does not write to mounts.
func (c *Cluster) CopyToNodes(ctx context.Context, program string) (string, error) {
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return "", err
	}
	path := "/usr/local/bin/" + filepath.Base(program)
	for _, node := range nodes {
		if _, err := c.docker.Run(ctx, "cp", program, node.Name+":"+path); err != nil {
			return "", err
		}
	}
	return path, nil
}

// waitNodes waits until pods can run and find each other by name.
func (c *Cluster) waitNodes(ctx context.Context) error {
	if err := c.waitNodesReady(ctx); err != nil {
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
		out, err := c.docker.Run(ctx, "exec", ControlPlane, "journalctl", "--no-pager", "--unit", unit, "--lines", "30")
		if err != nil {
			out = err.Error()
		}
		text += fmt.Sprintf("--- %s on the node\n%s\n", unit, out)
	}
	return text
}
