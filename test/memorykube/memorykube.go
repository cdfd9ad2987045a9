// Package memorykube is an API server in memory, for tests of logic that need thousands of runs. It stores
// objects of the types of [resources] as JSON, with uid, resourceVersion and optimistic concurrency. It lists in
// pages, and applies JSON patches and merge patches. It has no authorization, admission, validation,
// managedFields or watches: tests in which these matter need a real one.
//
// TestContract compares it with a real API server.
package memorykube

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// kinds has the kinds that are stored, by resource.
var kinds = map[string]schema.GroupVersionKind{
	"secrets":    {Version: "v1", Kind: "Secret"},
	"configmaps": {Version: "v1", Kind: "ConfigMap"},
	"events":     {Version: "v1", Kind: "Event"},
	"leases":     {Group: "coordination.k8s.io", Version: "v1", Kind: "Lease"},
}

// Server is the API server. It is safe for concurrent use.
type Server struct {
	mu      sync.Mutex
	version int
	objects map[location]map[string]any
}

type location struct{ resource, namespace, name string }

// New returns a server without objects. Namespaces need not be created.
func New() *Server { return &Server{objects: map[location]map[string]any{}} }

// Client returns a clientset whose requests pass through wrap, unless it is nil.
func (s *Server) Client(wrap func(http.RoundTripper) http.RoundTripper) kubernetes.Interface {
	config := &rest.Config{Host: "http://memory", QPS: -1, Transport: s}
	config.ContentType = runtime.ContentTypeJSON
	if wrap != nil {
		config.Wrap(wrap)
	}
	return kubernetes.NewForConfigOrDie(config)
}

// RoundTrip implements http.RoundTripper: there is no network.
func (s *Server) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	body, err := s.serve(r)
	code := http.StatusOK
	if err != nil {
		status := err.(apierrors.APIStatus).Status()
		status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
		body, code = status, int(status.Code)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// serve processes a request. An error is an APIStatus.
func (s *Server) serve(r *http.Request) (any, error) {
	at := parse(r.URL.Path)
	body, err := readBody(r)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if _, ok := kinds[at.resource]; !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: at.resource}, at.name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.Method == http.MethodPost:
		return s.create(at, body, r.URL.Query().Get("dryRun") != "")
	case r.Method == http.MethodGet && at.name == "":
		return s.list(at, r)
	case r.Method == http.MethodDelete && at.name == "":
		for _, found := range s.find(at) {
			delete(s.objects, found)
		}
		return metav1.Status{Status: metav1.StatusSuccess}, nil
	}
	current := s.objects[at]
	if current == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: at.resource}, at.name)
	}
	switch r.Method {
	case http.MethodGet:
		return current, nil
	case http.MethodPut:
		return s.update(at, current, body)
	case http.MethodPatch:
		return s.patch(at, current, types.PatchType(r.Header.Get("Content-Type")), body)
	case http.MethodDelete:
		delete(s.objects, at)
		return metav1.Status{Status: metav1.StatusSuccess}, nil
	}
	return nil, apierrors.NewMethodNotSupported(schema.GroupResource{Resource: at.resource}, r.Method)
}

func readBody(r *http.Request) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	defer r.Body.Close()
	return io.ReadAll(r.Body)
}

// parse parses /api/v1/[namespaces/NAMESPACE/]RESOURCE[/NAME].
func parse(path string) (at location) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	parts = parts[min(map[string]int{"api": 2, "apis": 3}[parts[0]], len(parts)):]
	if len(parts) > 2 && parts[0] == "namespaces" {
		at.namespace, parts = parts[1], parts[2:]
	}
	if len(parts) > 0 {
		at.resource = parts[0]
	}
	if len(parts) > 1 {
		at.name = parts[1]
	}
	return at
}

func (s *Server) create(at location, body []byte, dryRun bool) (any, error) {
	object, err := decode(body)
	if err != nil {
		return nil, err
	}
	o := unstructured.Unstructured{Object: object}
	if at.name = o.GetName(); at.name == "" {
		at.name = o.GetGenerateName() + strconv.Itoa(s.version)
	}
	if s.objects[at] != nil {
		return nil, apierrors.NewAlreadyExists(schema.GroupResource{Resource: at.resource}, at.name)
	}
	o.SetGroupVersionKind(kinds[at.resource])
	o.SetNamespace(at.namespace)
	o.SetName(at.name)
	o.SetUID(uuid.NewUUID())
	o.SetCreationTimestamp(metav1.NewTime(time.Now().Truncate(time.Second)))
	if dryRun {
		return object, nil
	}
	s.store(at, object)
	return object, nil
}

func (s *Server) store(at location, object map[string]any) {
	s.version++
	o := unstructured.Unstructured{Object: object}
	o.SetResourceVersion(strconv.Itoa(s.version))
	s.objects[at] = object
}

func (s *Server) update(at location, current map[string]any, body []byte) (any, error) {
	object, err := decode(body)
	if err != nil {
		return nil, err
	}
	before, after := unstructured.Unstructured{Object: current}, unstructured.Unstructured{Object: object}
	if v := after.GetResourceVersion(); v != "" && v != before.GetResourceVersion() ||
		after.GetUID() != "" && after.GetUID() != before.GetUID() {
		return nil, apierrors.NewConflict(schema.GroupResource{Resource: at.resource}, at.name,
			errors.New("the object has been modified"))
	}
	after.SetUID(before.GetUID())
	after.SetCreationTimestamp(before.GetCreationTimestamp())
	after.SetGroupVersionKind(kinds[at.resource])
	s.store(at, object)
	return object, nil
}

func (s *Server) patch(at location, current map[string]any, kind types.PatchType, body []byte) (any, error) {
	text, err := json.Marshal(current)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	switch kind {
	case types.JSONPatchType:
		var patch jsonpatch.Patch
		if patch, err = jsonpatch.DecodePatch(body); err == nil {
			text, err = patch.Apply(text)
		}
		if err != nil {
			return nil, apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "",
				err.Error(), 0, false)
		}
	case types.MergePatchType, types.StrategicMergePatchType: // no list of these types has a merge key
		if text, err = jsonpatch.MergePatch(text, body); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	default:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("a patch of the type %q", kind))
	}
	return s.update(at, current, text)
}

// decode parses an object, and moves stringData to data.
func decode(body []byte) (map[string]any, error) {
	var object map[string]any
	if err := json.Unmarshal(body, &object); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	text, _, _ := unstructured.NestedStringMap(object, "stringData")
	if len(text) > 0 {
		data, _, _ := unstructured.NestedStringMap(object, "data")
		if data == nil {
			data = map[string]string{}
		}
		for name, value := range text {
			data[name] = base64.StdEncoding.EncodeToString([]byte(value))
		}
		_ = unstructured.SetNestedStringMap(object, data, "data")
	}
	delete(object, "stringData")
	return object, nil
}

// find returns the locations of the objects of a resource, in their order.
func (s *Server) find(at location) []location {
	found := slices.DeleteFunc(slices.Collect(maps.Keys(s.objects)), func(l location) bool {
		return l.resource != at.resource || at.namespace != "" && l.namespace != at.namespace
	})
	slices.SortFunc(found, location.compare)
	return found
}

func (l location) compare(other location) int {
	return cmp.Or(cmp.Compare(l.namespace, other.namespace), cmp.Compare(l.name, other.name))
}

// list returns a page. Unlike that of an API server, it has the present state even if it is not the first.
func (s *Server) list(at location, r *http.Request) (any, error) {
	query := r.URL.Query()
	byLabel, err1 := labels.Parse(query.Get("labelSelector"))
	byField, err2 := fields.ParseSelector(query.Get("fieldSelector"))
	if err := errors.Join(err1, err2); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	limit, _ := strconv.Atoi(query.Get("limit"))
	var after location
	after.namespace, after.name, _ = strings.Cut(query.Get("continue"), "/")
	metadata := map[string]any{"resourceVersion": strconv.Itoa(s.version)}
	items := []any{}
	for _, l := range s.find(at) {
		o := unstructured.Unstructured{Object: s.objects[l]}
		kind, _, _ := unstructured.NestedString(o.Object, "type")
		if l.compare(after) <= 0 || !byLabel.Matches(labels.Set(o.GetLabels())) ||
			!byField.Matches(fields.Set{"metadata.name": l.name, "metadata.namespace": l.namespace, "type": kind}) {
			continue
		}
		if limit > 0 && len(items) == limit {
			last := unstructured.Unstructured{Object: items[limit-1].(map[string]any)}
			metadata["continue"] = last.GetNamespace() + "/" + last.GetName()
			break
		}
		items = append(items, o.Object)
	}
	kind := kinds[at.resource]
	return map[string]any{"kind": kind.Kind + "List", "apiVersion": kind.GroupVersion().String(), "metadata": metadata,
		"items": items}, nil
}
