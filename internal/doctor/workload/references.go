package workload

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Reference is a ConfigMap or a Secret that a pod needs to start.
type Reference struct {
	Resource, Name string
	Volume         string // that has it; empty for none
	Key            string // of the ConfigMap that the volume needs first
}

// References returns what a pod needs to start.
func References(spec *corev1.PodSpec) (refs []Reference) {
	add := func(resource, name, volume, key string, optional *bool) {
		// The controller manager makes this one in each namespace.
		if name == "" || name == "kube-root-ca.crt" || optional != nil && *optional ||
			slices.ContainsFunc(refs, func(r Reference) bool { return r.Resource == resource && r.Name == name }) {
			return
		}
		refs = append(refs, Reference{resource, name, volume, key})
	}
	for _, v := range spec.Volumes {
		if v.ConfigMap != nil {
			key := "ca.crt"
			if len(v.ConfigMap.Items) > 0 {
				key = v.ConfigMap.Items[0].Key
			}
			add("configmaps", v.ConfigMap.Name, v.Name, key, v.ConfigMap.Optional)
		}
		if v.Secret != nil {
			add("secrets", v.Secret.SecretName, v.Name, "", v.Secret.Optional)
		}
	}
	for _, c := range spec.Containers {
		for _, from := range c.EnvFrom {
			if from.ConfigMapRef != nil {
				add("configmaps", from.ConfigMapRef.Name, "", "", from.ConfigMapRef.Optional)
			}
			if from.SecretRef != nil {
				add("secrets", from.SecretRef.Name, "", "", from.SecretRef.Optional)
			}
		}
	}
	return refs
}
