// Package mountrequest builds the request that kubelet and CSI driver would send a provider for a pod.
package mountrequest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/podtoken"
)

// Pod is a pod with a volume of a class.
type Pod struct {
	// Namespace defaults to that of the class or of the first token, the others to those of the token.
	Namespace, Name, UID, ServiceAccount string

	Class      Class
	Secret     *Secret           // of nodePublishSecretRef; nil for none
	Attributes map[string]string // of the volume, which override the parameters of the class
	Tokens     []Token
	TargetPath string
}

// Token is a service account token of the pod. Another text is sent as it is: the provider has to refuse
// it.
type Token struct {
	Source   string // for notes
	Audience string // empty for the API server
	Text     string
}

// ErrNamespace reports that the namespace of the pod is missing or invalid.
var ErrNamespace = errors.New("no namespace for the pod")

// Request returns the request, and notes about what a kubelet would not send or the provider refuses. The
// error is about what cannot happen in a cluster.
func (p Pod) Request() (request *v1alpha1.MountRequest, notes []string, err error) {
	claims, _ := podtoken.Parse(p.Tokens[0].Text)
	p.Namespace = cmp.Or(p.Namespace, p.Class.Namespace, claims.Namespace)
	if err := p.check(); err != nil {
		return nil, nil, err
	}
	if issued := claims.Namespace; issued != "" && issued != p.Namespace {
		// Not an error: an attacker may try it.
		notes = append(notes, fmt.Sprintf("the token is of namespace %s, and the pod is in %s: a kubelet would not send that",
			issued, p.Namespace))
	}
	tokens := map[string]any{}
	for _, t := range p.Tokens {
		claims, _ := podtoken.Parse(t.Text)
		if note := t.note(p.Namespace, claims); note != "" {
			notes = append(notes, note)
		}
		expires := claims.Expires
		if expires.IsZero() {
			expires = time.Now().Add(time.Hour).Truncate(time.Second)
		}
		tokens[t.Audience] = map[string]any{"token": t.Text, "expirationTimestamp": expires.UTC()}
	}
	// The attributes of the kubelet come last: authors of pods cannot override them.
	attributes := maps.Clone(p.Class.Parameters)
	maps.Copy(attributes, p.Attributes)
	attributes[class.AttributeClass] = p.Class.Name
	attributes[class.AttributePodName] = cmp.Or(p.Name, claims.Pod, "mount")
	attributes[class.AttributePodNamespace] = p.Namespace
	attributes[class.AttributePodUID] = cmp.Or(p.UID, claims.PodUID, "00000000-0000-0000-0000-000000000000")
	attributes[class.AttributeAccount] = cmp.Or(p.ServiceAccount, claims.ServiceAccount, "default")
	attributes[class.AttributeEphemeral] = "true"
	attributes[class.AttributeTokens] = jsonOf(tokens)
	var data map[string]string // null without a Secret, as the driver sends it
	if p.Secret != nil {
		data = p.Secret.Data
	}
	return &v1alpha1.MountRequest{
		Attributes: jsonOf(attributes), Secrets: jsonOf(data), TargetPath: p.TargetPath, Permission: "420",
	}, notes, nil
}

// check returns an error for what cannot happen in a cluster.
func (p *Pod) check() error {
	if p.Namespace == "" {
		return fmt.Errorf("%w: neither the class nor the token has one", ErrNamespace)
	}
	if problems := validation.IsDNS1123Label(p.Namespace); len(problems) > 0 {
		return fmt.Errorf("%w: %q: %s", ErrNamespace, p.Namespace, problems[0])
	}
	if in := p.Class.Namespace; in != "" && in != p.Namespace {
		return display.Errorf("the class is in namespace %s and the pod in %s: the driver looks for classes in the pod's "+
			"namespace only", in, p.Namespace)
	}
	if s := p.Secret; s != nil && s.Namespace != "" && s.Namespace != p.Namespace {
		return display.Errorf("Secret %s is in namespace %s and the pod in %s: the kubelet reads it in the pod's namespace "+
			"only", s.Name, s.Namespace, p.Namespace)
	}
	return nil
}

// note reports a token that the provider refuses as it is bound to no pod, which is the default of kubectl
// create token; empty for others.
func (t Token) note(namespace string, claims podtoken.Claims) string {
	switch {
	case claims == podtoken.Claims{}:
		return fmt.Sprintf("the text in %s is not a Kubernetes service account token: the provider refuses it", t.Source)
	case claims.Pod != "":
		return ""
	}
	account, audience := claims.ServiceAccount, ""
	if len(validation.IsDNS1123Subdomain(account)) > 0 {
		account = "ACCOUNT"
	}
	if t.Audience != "" {
		audience = " --audience " + t.Audience
	}
	return fmt.Sprintf("the token in %s is bound to no pod: the provider refuses it. For one that is bound "+
		"to an existing "+
		"pod POD: kubectl create token %s -n %s%s --bound-object-kind Pod --bound-object-name POD", t.Source, account,
		namespace, audience)
}

// jsonOf encodes strings and times, which cannot fail.
func jsonOf(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}
