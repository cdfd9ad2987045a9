package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/test/e2e/step"
)

// ConnectNodes connects the pods of all nodes: each node's CNI configuration gets the node's range of addresses, and
// each node gets routes to the ranges of the others. A restarted node loses its routes. The stock node image has a
// network plugin that does this.
func (c *Cluster) ConnectNodes(ctx context.Context) error {
	if c.Images.Node == "" {
		return nil
	}
	nodes, err := c.waitPodCIDRs(ctx)
	if err != nil {
		return err
	}
	for _, node := range nodes {
		script := "mkdir -p /etc/cni/net.d && sed 's#SUBNET#" + node.Spec.PodCIDR +
			"#' /kind/10-ptp.conflist > /tmp/conflist && mv /tmp/conflist /etc/cni/net.d/10-ptp.conflist\n"
		for _, other := range nodes {
			if other.Name == node.Name {
				continue
			}
			address, err := internalAddress(&other)
			if err != nil {
				return err
			}
			script += "ip route replace " + other.Spec.PodCIDR + " via " + address + "\n"
		}
		cmd := c.OnNode(ctx, node.Name, "sh", "-e")
		cmd.Stdin = strings.NewReader(script)
		if _, err := step.Run(cmd); err != nil {
			return fmt.Errorf("connecting node %s: %w", node.Name, err)
		}
	}
	return nil
}

// HostAddress returns the address of this machine in the network of the nodes, for a server outside of the cluster that
// pods must reach. It is an address of the Docker bridge, which other machines do not reach.
func (c *Cluster) HostAddress(ctx context.Context) (string, error) {
	list, err := c.docker.Run(ctx, "network", "inspect", "--format", "{{range .IPAM.Config}}{{.Gateway}} {{end}}", "kind")
	if err != nil {
		return "", fmt.Errorf("looking for the network of the nodes: %w", err)
	}
	for address := range strings.FieldsSeq(list) {
		if ip, err := netip.ParseAddr(address); err == nil && ip.Is4() {
			return address, nil
		}
	}
	return "", fmt.Errorf("the network of the nodes has no IPv4 gateway: %q", list)
}

// waitPodCIDRs waits until every node has a range of addresses for its pods, and returns the nodes.
func (c *Cluster) waitPodCIDRs(ctx context.Context) (nodes []corev1.Node, err error) {
	err = Wait(ctx, 2*time.Minute, "every node to have a range of addresses for pods",
		func(ctx context.Context) (bool, string, error) {
			var err error
			if nodes, err = c.Nodes(ctx); err != nil {
				return false, "", err
			}
			for i := range nodes {
				if nodes[i].Spec.PodCIDR == "" {
					return false, nodes[i].Name + " has none", nil
				}
			}
			return len(nodes) == c.options.nodes(), fmt.Sprintf("%d nodes", len(nodes)), nil
		})
	return nodes, err
}

// RestartNode restarts a node's container, which ends every process on the node, as a reboot does. It returns when the
// kubelet reports the node as ready again.
func (c *Cluster) RestartNode(ctx context.Context, name string) error {
	before := time.Now()
	if _, err := c.docker.Run(ctx, "restart", "--time", "1", name); err != nil {
		return fmt.Errorf("restarting node %s: %w", name, err)
	}
	if err := c.ConnectNodes(ctx); err != nil {
		return err
	}
	return Wait(ctx, 3*time.Minute, "node "+name+" to be ready again", func(ctx context.Context) (bool, string, error) {
		nodes, err := c.Nodes(ctx)
		if err != nil {
			return false, "", err
		}
		for i := range nodes {
			if nodes[i].Name != name {
				continue
			}
			for _, condition := range nodes[i].Status.Conditions {
				if condition.Type == corev1.NodeReady && condition.LastHeartbeatTime.After(before) {
					ready, why := nodeReady(&nodes[i])
					return ready, why, nil
				}
			}
			return false, "its kubelet has not reported since the restart", nil
		}
		return false, "there is no such node", nil
	})
}
