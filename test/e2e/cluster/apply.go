package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// An Edit changes an object before it is applied: an image, a flag.
type Edit func(*unstructured.Unstructured) error

// Decode reads the objects of a stream of YAML or JSON documents.
func Decode(manifest []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading object %d of a manifest: %w", len(objects)+1, err)
		}
		if len(object.Object) > 0 { // not only comments
			objects = append(objects, object)
		}
	}
}

// ApplyYAML applies the objects of a manifest, in its order.
func (c *Cluster) ApplyYAML(ctx context.Context, manifest string, edits ...Edit) error {
	objects, err := Decode([]byte(manifest))
	if err != nil {
		return err
	}
	return c.apply(ctx, objects, edits)
}

// ApplyKustomization builds and applies the kustomization, as `kubectl apply -k` does.
func (c *Cluster) ApplyKustomization(ctx context.Context, dir string, edits ...Edit) error {
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return fmt.Errorf("building the kustomization %s: %w", dir, err)
	}
	text, err := resources.AsYaml()
	if err != nil {
		return fmt.Errorf("building the kustomization %s: %w", dir, err)
	}
	return c.ApplyYAML(ctx, string(text), edits...)
}

func (c *Cluster) apply(ctx context.Context, objects []*unstructured.Unstructured, edits []Edit) error {
	for _, object := range objects {
		for _, edit := range edits {
			if err := edit(object); err != nil {
				return fmt.Errorf("changing %s before it is applied: %w", title(object), err)
			}
		}
		if err := c.Apply(ctx, object); err != nil {
			return err
		}
	}
	return nil
}

// Apply creates or changes the object by server-side apply. It waits for kinds whose
// definitions were just created.
func (c *Cluster) Apply(ctx context.Context, object *unstructured.Unstructured) error {
	resource, err := c.resource(ctx, object)
	if err != nil {
		return fmt.Errorf("applying %s: %w", title(object), err)
	}
	_, err = resource.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: Name, Force: true})
	if err != nil {
		return fmt.Errorf("applying %s: %w", title(object), err)
	}
	return nil
}

// Delete deletes the object, if it exists, and waits until it is deleted.
func (c *Cluster) Delete(ctx context.Context, object *unstructured.Unstructured) error {
	resource, err := c.resource(ctx, object)
	if err != nil {
		return fmt.Errorf("deleting %s: %w", title(object), err)
	}
	foreground := metav1.DeletePropagationForeground
	err = resource.Delete(ctx, object.GetName(), metav1.DeleteOptions{PropagationPolicy: &foreground})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("deleting %s: %w", title(object), err)
	}
	return Wait(ctx, 2*time.Minute, title(object)+" to be deleted", func(ctx context.Context) (bool, string, error) {
		_, err := resource.Get(ctx, object.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return true, "", nil
		}
		return false, "it is still there", err
	})
}

// resource returns the client for the object's kind and namespace.
func (c *Cluster) resource(ctx context.Context, object *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	kind := object.GroupVersionKind()
	var mapping *meta.RESTMapping
	err := Wait(ctx, 30*time.Second, "the API server to know "+kind.Kind, func(context.Context) (bool, string, error) {
		var err error
		mapping, err = c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
		if meta.IsNoMatchError(err) {
			c.mapper.Reset()
		}
		return err == nil, "", err
	})
	if err != nil {
		return nil, err
	}
	client := c.Dynamic.Resource(mapping.Resource)
	if mapping.Scope.Name() != meta.RESTScopeNameNamespace {
		return client, nil
	}
	if object.GetNamespace() == "" {
		object.SetNamespace(metav1.NamespaceDefault)
	}
	return client.Namespace(object.GetNamespace()), nil
}

func title(object *unstructured.Unstructured) string {
	name := object.GetName()
	if object.GetNamespace() != "" {
		name = object.GetNamespace() + "/" + name
	}
	return object.GetKind() + " " + name
}
