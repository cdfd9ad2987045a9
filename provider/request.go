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
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/document"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// Limits of a request. docs/reference/parameters.md lists them with those of the class. Each is checked before the text
// is parsed.
const (
	// maxRequest bounds the request of the driver: a Secret of 1 MiB, a class and a pod, with room to spare.
	maxRequest = 4 << 20
	// maxAttributes bounds the bytes of all parameters, maxParameters their number.
	maxAttributes = 1 << 20
	maxParameters = 200
	// maxTokenBytes bounds the bytes of the pod's service account tokens, maxTokens their number.
	maxTokenBytes = 256 << 10
	maxTokens     = 100
	// maxEntries bounds the entries of the Secret. The rotator cannot patch a Secret with more.
	maxEntries = 10_000
)

// request is a validated MountRequest.
type request struct {
	class.Class
	pod       pod
	className string
	target    string // directory that the driver will write to

	attributes map[string]string // without the tokens
	digest     digest            // of the whole request; see [republishCache.requestDigest]

	tokens    tokens
	delivered map[string][]byte // entries of the Secret that the kubelet sent; nil if none
}

// pod is the pod of the mount, as the kubelet names it.
type pod struct {
	namespace, name, uid, serviceAccount string
}

// parse reads and validates a MountRequest. The request is never nil: logs use the names that could be read. The
// failure reports all problems at once, each with its path.
func (p *Provider) parse(in *v1alpha1.MountRequest) (*request, *failure.Error) {
	r, failed := p.readAttributes(in)
	if failed == nil {
		failed = p.validate(r, in)
	}
	return r, failed
}

// readAttributes reads the attributes, and so the pod, of a mount. It parses nothing else, because that takes more
// memory: [Provider.validate] does that after the memory is reserved.
func (p *Provider) readAttributes(in *v1alpha1.MountRequest) (*request, *failure.Error) {
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
	// These become headers of the requests to Vault, for its audit log.
	for _, named := range []struct {
		key, value, what string
		valid            func(string) bool
	}{
		{class.AttributePodName, r.pod.name, "the name of a pod", isSubdomain},
		{class.AttributePodUID, r.pod.uid, "a UID", isUID},
		{class.AttributeAccount, r.pod.serviceAccount, "the name of a service account", isSubdomain},
		{class.AttributeClass, r.className, "the name of a SecretProviderClass", isSubdomain},
	} {
		if named.value != "" && !named.valid(named.value) {
			problems = append(problems, fmt.Sprintf("%s: %s is not %s", named.key, display.Quote(named.value), named.what))
		}
	}
	problems = append(problems, r.readTokens(attributes, secrets)...)
	r.readDelivered(secrets)
	delete(attributes, class.AttributeTokens) // in r.tokens now

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
		"that the driver supports the provider protocol v1alpha1, and its log")
}

func tooLarge(err error) *failure.Error {
	return failure.RequestTooLarge.New(readingRequest, strings.ReplaceAll(err.Error(), "\n", "; "),
		"the size of the class's parameters, of the pod's volumeAttributes and of the Secret in nodePublishSecretRef")
}

// checkMap returns an error for a JSON object that has too many bytes or members.
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

// checkSize returns an error for a text of more than limit bytes.
func checkSize(text string, limit int) error {
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
	if err := checkSize(text, maxBytes); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// describe names the mount in a message, such as "mounting the volume of SecretProviderClass demo/matrix".
func (r *request) describe(prefix string) string {
	if r.className == "" {
		return prefix + " the mount"
	}
	return fmt.Sprintf("%s SecretProviderClass %s/%s", prefix, display.Clip(r.pod.namespace, 63),
		display.Clip(r.className, 253))
}

// readTokens reads the tokens from the attributes, or from the secrets, where Kubernetes 1.35 and later may put them.
func (r *request) readTokens(attributes, secrets map[string]string) (problems []string) {
	text := attributes[class.AttributeTokens]
	if text == "" {
		text = secrets[class.AttributeTokens]
	}
	if text == "" {
		return nil // tokens.pick fails for an audience that is needed
	}
	var err error
	if r.tokens, err = parseTokens(text); err != nil {
		return []string{class.AttributeTokens + ": " + err.Error()}
	}
	return nil
}

// readDelivered reads the entries of the Secret in nodePublishSecretRef. It skips names with the prefix of the kubelet,
// which contains a slash and so cannot begin the name of an entry.
func (r *request) readDelivered(secrets map[string]string) {
	for name, value := range secrets {
		if strings.HasPrefix(name, class.KubeletPrefix) {
			continue
		}
		if r.delivered == nil {
			r.delivered = map[string][]byte{}
		}
		r.delivered[name] = []byte(value)
	}
}

// stringMap parses a JSON object of strings; null is an empty one. The problems do not quote values.
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
	return values, stringMapProblems(path, text)
}

// stringMapProblems returns the reasons why a text is not a JSON object of strings.
func stringMapProblems(path, text string) (found failure.Problems) {
	var raw map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &raw) != nil {
		return []string{path + ": is not a JSON object"}
	}
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		var s *string
		if json.Unmarshal(raw[name], &s) != nil || s == nil {
			if !found.Add(fmt.Sprintf("%s[%s]: is not a string", path, display.Quote(name))) {
				break
			}
		}
	}
	return found
}
