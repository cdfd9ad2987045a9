package mount

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/podtoken"
)

// request returns the request that the driver would send.
func (o *Options) request() (*v1alpha1.MountRequest, error) {
	spc, err := o.readClass(o.class)
	if err != nil {
		return nil, err
	}
	tokens := map[string]serviceAccountToken{}
	token, claims, err := readToken(o.token)
	if err != nil {
		return nil, fmt.Errorf("--service-account-token: %w", err)
	}
	tokens[o.audience] = token
	var kubeClaims podtoken.Claims
	if o.kubeToken != "" {
		if tokens[""], kubeClaims, err = readToken(o.kubeToken); err != nil {
			return nil, fmt.Errorf("--kube-token: %w", err)
		}
	}
	namespace := cmp.Or(*o.KubeFlags.Namespace, spc.Metadata.Namespace, claims.Namespace)
	if err := o.checkNamespace(namespace, spc, claims); err != nil {
		return nil, err
	}
	o.checkBound("--service-account-token", o.audience, namespace, claims)
	if o.kubeToken != "" {
		o.checkBound("--kube-token", "", namespace, kubeClaims)
	}
	secrets, err := o.readSecrets(namespace)
	if err != nil {
		return nil, err
	}

	// The attributes of the kubelet come last: authors of pods cannot override them.
	attributes := maps.Clone(spc.Spec.Parameters)
	if attributes == nil {
		attributes = map[string]string{}
	}
	maps.Copy(attributes, o.attributes)
	attributes[class.AttributeClass] = spc.Metadata.Name
	attributes[class.AttributePodName] = cmp.Or(o.pod, claims.Pod, "mount")
	attributes[class.AttributePodNamespace] = namespace
	attributes[class.AttributePodUID] = cmp.Or(o.podUID, claims.PodUID, "00000000-0000-0000-0000-000000000000")
	attributes[class.AttributeAccount] = cmp.Or(o.account, claims.ServiceAccount, "default")
	attributes[class.AttributeEphemeral] = "true"
	tokensText, err := json.Marshal(tokens)
	if err != nil {
		return nil, err
	}
	attributes[class.AttributeTokens] = string(tokensText)
	attributesText, err := json.Marshal(attributes)
	if err != nil {
		return nil, err
	}
	secretsText, err := json.Marshal(secrets) // null without a Secret, as the driver sends it
	if err != nil {
		return nil, err
	}
	return &v1alpha1.MountRequest{
		Attributes: string(attributesText),
		Secrets:    string(secretsText),
		TargetPath: o.out,
		Permission: "420",
	}, nil
}

// checkNamespace returns an error for what cannot happen in a cluster.
func (o *Options) checkNamespace(namespace string, spc secretProviderClass, claims podtoken.Claims) error {
	if namespace == "" {
		return cli.Usagef("no namespace: neither the class nor the token has one; set -n")
	}
	if problems := validation.IsDNS1123Label(namespace); len(problems) > 0 {
		return cli.Usagef("namespace %q: %s", namespace, problems[0])
	}
	if in := spc.Metadata.Namespace; in != "" && in != namespace {
		return fmt.Errorf("the class is in namespace %s and the pod in %s: the driver looks for classes in the pod's "+
			"namespace only", in, namespace)
	}
	if issued := claims.Namespace; issued != "" && issued != namespace {
		// Not an error: an attacker may try it.
		display.Fprintf(o.ErrOut, "note: the token is of namespace %s, and the pod is in %s: a kubelet would not "+
			"send that\n", issued, namespace)
	}
	return nil
}

// serviceAccountToken is a token as the kubelet passes it to the driver.
type serviceAccountToken struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expirationTimestamp"`
}

// readToken reads a token from a file. A text that is not a service account token has no claims and
// is sent: the provider has to refuse it.
func readToken(file string) (serviceAccountToken, podtoken.Claims, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return serviceAccountToken{}, podtoken.Claims{}, err
	}
	token := serviceAccountToken{Token: strings.TrimSpace(string(text))}
	if token.Token == "" {
		return token, podtoken.Claims{}, errors.New("the file " + file + " is empty")
	}
	claims, _ := podtoken.Parse(token.Token)
	token.Expires = claims.Expires.UTC()
	if claims.Expires.IsZero() {
		token.Expires = time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	}
	return token, claims, nil
}

// checkBound reports a token that the provider refuses as it is bound to no pod, which is the
// default of kubectl create token.
func (o *Options) checkBound(flag, audience, namespace string, claims podtoken.Claims) {
	switch {
	case claims == podtoken.Claims{}:
		display.Fprintf(o.ErrOut, "note: the text in %s is not a Kubernetes service account token: the provider "+
			"refuses it\n", flag)
	case claims.Pod == "":
		account := claims.ServiceAccount
		if len(validation.IsDNS1123Subdomain(account)) > 0 {
			account = "ACCOUNT"
		}
		if audience != "" {
			audience = " --audience " + audience
		}
		display.Fprintf(o.ErrOut, "note: the token in %s is bound to no pod: the provider refuses it. For one that "+
			"is bound to an existing pod POD:\n"+
			"  kubectl create token %s -n %s%s --bound-object-kind Pod --bound-object-name POD\n", flag, account,
			namespace, audience)
	}
}
