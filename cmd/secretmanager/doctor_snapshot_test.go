package main

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// snapshot has all objects of the cluster and the configuration of Vault, by "RESOURCE NAMESPACE/NAME" and "vault
// PATH".
type snapshot map[string]string

// volatile are the API groups whose objects the API server itself changes, and records of what happened.
var volatile = []string{"apiregistration.k8s.io", "flowcontrol.apiserver.k8s.io", "coordination.k8s.io",
	"events.k8s.io",
	"internal.apiserver.k8s.io"}

// snapshot reads everything.
func (c *doctorEnv) snapshot(t *testing.T) snapshot {
	t.Helper()
	s := snapshot{}
	client, err := dynamic.NewForConfig(c.server.Config)
	check(t, err)
	if c.resources == nil {
		lists, err := c.kube.Discovery().ServerPreferredResources()
		check(t, err)
		for _, list := range lists {
			group, err := schema.ParseGroupVersion(list.GroupVersion)
			check(t, err)
			for _, r := range list.APIResources {
				if slices.Contains(r.Verbs, "list") && !slices.Contains(volatile, group.Group) && r.Name != "events" {
					c.resources = append(c.resources, group.WithResource(r.Name))
				}
			}
		}
	}
	for _, resource := range c.resources {
		list, err := client.Resource(resource).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			continue // a fault removed the kind
		}
		for _, o := range list.Items {
			for _, field := range []string{"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"} {
				delete(o.Object["metadata"].(map[string]any), field)
			}
			text, err := json.Marshal(o.Object)
			check(t, err)
			s[resource.Resource+" "+o.GetNamespace()+"/"+o.GetName()] = string(text)
		}
	}
	c.vaultSnapshot(t, s)
	return s
}

// vaultSnapshot adds mounts, policies, roles and keys.
func (c *doctorEnv) vaultSnapshot(t *testing.T, s snapshot) {
	t.Helper()
	read := func(path string) map[string]any {
		data, err := c.vault.Read(t.Context(), path)
		if err != nil {
			return nil
		}
		text, err := json.Marshal(data)
		check(t, err)
		s["vault "+path] = string(text)
		return data
	}
	each := func(path string) {
		data, err := c.vault.Read(t.Context(), path+"?list=true")
		if err != nil {
			return
		}
		keys, _ := data["keys"].([]any)
		for _, key := range keys {
			if name, _ := key.(string); name != "" {
				read(path + "/" + name)
			}
		}
	}
	each("sys/policies/acl")
	for mount := range read("sys/auth") {
		mount = "auth/" + strings.TrimSuffix(mount, "/")
		read(mount + "/config")
		each(mount + "/role")
	}
	read("sys/mounts")
	each("transit/keys")
}

// changes returns what differs between two snapshots.
func (s snapshot) changes(after snapshot) (changed []string) {
	all := maps.Clone(s)
	maps.Copy(all, after)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if s[name] != after[name] {
			changed = append(changed, name)
		}
	}
	return changed
}
