package encrypt

import (
	"context"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
)

// maxListed bounds the Secrets whose keys are looked at.
const maxListed = 500

// keysOf returns the keys of the ciphertext Secrets of a namespace, sorted, for a default and for messages. It returns
// none if they are not known, as for a user who may not list Secrets, or if there are too many Secrets. Only the
// metadata of the Secrets is read.
func (o *Options) keysOf(ctx context.Context, namespace string) []ciphertext.Key {
	config, err := o.RESTConfig()
	if err != nil {
		return nil
	}
	client, err := metadata.NewForConfig(metadata.ConfigFor(config))
	if err != nil {
		return nil
	}
	list, err := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).Namespace(namespace).
		List(ctx, metav1.ListOptions{LabelSelector: ciphertext.LabelTransitKey, Limit: maxListed})
	if err != nil || list.Continue != "" {
		return nil
	}
	keys := map[string]ciphertext.Key{}
	for i := range list.Items {
		if set, err := ciphertext.SettingsOf(&corev1.Secret{ObjectMeta: list.Items[i].ObjectMeta}); err == nil {
			keys[set.Key.String()] = set.Key
		}
	}
	sorted := make([]ciphertext.Key, 0, len(keys))
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		sorted = append(sorted, keys[name])
	}
	return sorted
}

// onlyKey sets the key of a new Secret to the only one of its namespace.
func (o *Options) onlyKey(ctx context.Context, spec *secretmanager.Spec) error {
	keys := o.keysOf(ctx, spec.Namespace)
	keys = slices.DeleteFunc(keys, func(k ciphertext.Key) bool { return o.mount != "" && k.Mount != o.mount })
	switch len(keys) {
	case 1:
		spec.Settings.Key = keys[0]
		display.Fprintf(o.ErrOut, "note: the key is %s, the only one of namespace %s; --transit-key names another one\n",
			keys[0], spec.Namespace)
		return nil
	case 0:
		return cli.Usagef("--transit-key is required: there is no Secret %s/%s yet to take it from", spec.Namespace,
			spec.Name)
	}
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.String()
	}
	return cli.Usagef("--transit-key is required: there is no Secret %s/%s yet to take it from, and the namespace has "+
		"several keys: %s", spec.Namespace, spec.Name, strings.Join(names, ", "))
}
