package provider

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/document"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// Limits of a request. docs/reference/parameters.md has them, and those of the class. Each is checked before anything
// is built from the text.
const (
	// maxRequest bounds the whole request of the driver: a Secret of 1 MiB, and a class and a pod with room to spare.
	maxRequest = 4 << 20
	// maxAttributes and maxParameters bound the parameters together.
	maxAttributes = 1 << 20
	maxParameters = 200
	// maxTokenBytes and maxTokens bound the service account tokens of the pod.
	maxTokenBytes = 256 << 10
	maxTokens     = 100
	// maxEntries bounds the Secret. The rotator cannot patch one with more.
	maxEntries = 10_000
)

// request is a Mount whose every part has been validated.
type request struct {
	class.Class
	pod       pod
	className string
	target    string // directory that the driver will write to

	attributes map[string]string // all but the tokens
	whole      digest            // of the request as it came; see republished

	tokens tokens
	handed map[string][]byte // entries of the Secret that the kubelet read; nil without
}

// pod is the pod of the mount, as the kubelet names it.
type pod struct {
	namespace, name, uid, serviceAccount string
}

// parse reads and validates a Mount. The request is never nil: it names in logs
// what could be read. The failure reports all problems at once, each with its path.
func (p *Provider) parse(in *v1alpha1.MountRequest) (*request, *failure.Error) {
	r, failed := p.open(in)
	if failed == nil {
		failed = p.validate(r, in)
	}
	return r, failed
}

// open reads whose the mount is. That takes no more than the text of the attributes:
// what more there is of it is built once there is room, by [Provider.validate].
func (p *Provider) open(in *v1alpha1.MountRequest) (*request, *failure.Error) {
	r := &request{target: in.GetTargetPath()}
	if err := errors.Join(checkMap("attributes", in.GetAttributes(), maxAttributes, maxParameters),
		checkMap("secrets", in.GetSecrets(), maxRequest, maxEntries),
		checkLength("the target path", in.GetTargetPath(), class.MaxPath)); err != nil {
		r.target = ""
		return r, tooLarge(err)
	}
	attributes, problems := stringMap("attributes", in.GetAttributes())
	if len(problems) > 0 {
		return r, unreadable(problems)
	}
	r.attributes = attributes
	r.pod = pod{attributes[class.AttributePodNamespace], attributes[class.AttributePodName],
		attributes[class.AttributePodUID], attributes[class.AttributeAccount]}
	r.className, r.Secret = attributes[class.AttributeClass], attributes["secretName"]
	return r, nil
}

// validate reads the rest of a request.
func (p *Provider) validate(r *request, in *v1alpha1.MountRequest) *failure.Error {
	attributes := r.attributes
	secrets, problems := stringMap("secrets", in.GetSecrets())
	if len(problems) > 0 {
		return unreadable(problems)
	}
	if len(validation.IsDNS1123Label(r.pod.namespace)) > 0 {
		problems = append(problems, class.AttributePodNamespace+
			": is not the name of a namespace; the CSIDriver needs podInfoOnMount: true")
	}
	// These become headers of the requests to Vault, which auditors read.
	for _, named := range []struct {
		key, value, what string
		valid            func(string) bool
	}{
		{class.AttributePodName, r.pod.name, "the name of a pod", isSubdomain},
		{class.AttributePodUID, r.pod.uid, "a uid", isUID},
		{class.AttributeAccount, r.pod.serviceAccount, "the name of a service account", isSubdomain},
		{class.AttributeClass, r.className, "the name of a SecretProviderClass", isSubdomain},
	} {
		if named.value != "" && !named.valid(named.value) {
			problems = append(problems, fmt.Sprintf("%s: %s is not %s", named.key, failure.Quote(named.value), named.what))
		}
	}
	problems = append(problems, r.readTokens(attributes, secrets)...)
	r.readHanded(secrets)
	delete(attributes, class.AttributeTokens) // which have been read

	parsed, errs := class.Parse(attributes, &p.settings, r.target)
	r.Class = parsed
	for _, err := range errs {
		problems = append(problems, err.Error())
	}
	if len(problems) > 0 {
		return failure.InvalidParameters.New(r.describe("reading the parameters of"), failure.List(problems),
			"the class's spec.parameters, and the pod's volumeAttributes, which override them")
	}
	return nil
}

const readingRequest = "reading the driver's request"

func unreadable(problems []string) *failure.Error {
	return failure.InvalidRequest.New(readingRequest, failure.List(problems),
		"that the driver is one that knows the provider protocol v1alpha1; its log says what it sent")
}

func tooLarge(err error) *failure.Error {
	return failure.RequestTooLarge.New(readingRequest, strings.ReplaceAll(err.Error(), "\n", "; "),
		"the size of the class's parameters, of the pod's volumeAttributes and of the Secret in nodePublishSecretRef")
}

// checkMap reports a JSON object that has more bytes or members than it may.
func checkMap(name, text string, maxBytes, maxMembers int) error {
	if err := checkLength(name, text, maxBytes); err != nil {
		return err
	}
	// The object itself counts too.
	if values, _ := document.JSONSize([]byte(text)); values > maxMembers+1 {
		return fmt.Errorf("%s have more than the limit of %d members", name, maxMembers)
	}
	return nil
}

// tooLong reports a text of more than limit bytes.
func tooLong(text string, limit int) error {
	if len(text) <= limit {
		return nil
	}
	return fmt.Errorf("has %d bytes, more than the limit of %s", len(text), bytesText(limit))
}

// bytesText formats a limit for messages.
func bytesText(n int) string {
	if n >= 1<<20 && n%(1<<20) == 0 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

func checkLength(name, text string, maxBytes int) error {
	if err := tooLong(text, maxBytes); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// describe names the mount in a message: "mounting the volume of SecretProviderClass demo/matrix".
func (r *request) describe(prefix string) string {
	if r.className == "" {
		return prefix + " the mount"
	}
	return fmt.Sprintf("%s SecretProviderClass %s/%s", prefix, failure.Clip(r.pod.namespace, 63),
		failure.Clip(r.className, 253))
}

// readTokens takes the tokens from where this kubelet and this driver put them:
// since Kubernetes 1.35 it may be secrets.
func (r *request) readTokens(attributes, secrets map[string]string) (problems []string) {
	text := attributes[class.AttributeTokens]
	if text == "" {
		text = secrets[class.AttributeTokens]
	}
	if text == "" {
		return nil // whoever needs one says which
	}
	var err error
	if r.tokens, err = parseTokens(text); err != nil {
		return []string{class.AttributeTokens + ": " + err.Error()}
	}
	return nil
}

// readHanded takes the entries of the Secret in nodePublishSecretRef. No entry
// of a Secret has a slash in its name; what has one is the kubelet's own.
func (r *request) readHanded(secrets map[string]string) {
	for name, value := range secrets {
		if strings.HasPrefix(name, class.KubeletPrefix) {
			continue
		}
		if r.handed == nil {
			r.handed = map[string][]byte{}
		}
		r.handed[name] = []byte(value)
	}
}

// stringMap reads a JSON object of strings; null is an empty one. It never
// repeats a value.
func stringMap(path, text string) (map[string]string, []string) {
	if text == "" {
		return nil, nil
	}
	var all map[string]*string
	err := json.Unmarshal([]byte(text), &all)
	values := make(map[string]string, len(all))
	for name, s := range all {
		if s != nil {
			values[name] = *s
		}
	}
	if err == nil && len(values) == len(all) {
		return values, nil
	}
	return values, notStrings(path, text)
}

// notStrings says what keeps a text from being a JSON object of strings.
func notStrings(path, text string) (found failure.Problems) {
	var raw map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &raw) != nil {
		return []string{path + ": is not a JSON object, as the driver sends it"}
	}
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		var s *string
		if json.Unmarshal(raw[name], &s) != nil || s == nil {
			if !found.Add(fmt.Sprintf("%s[%s]: is not a string", path, failure.Quote(name))) {
				break
			}
		}
	}
	return found
}
