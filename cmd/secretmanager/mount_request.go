package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"time"

	"github.com/secretmanager-io/secretmanager/internal/display"

	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"
)

// What kubelet and driver add to the class's parameters.
const (
	attrClass     = "secretProviderClass"
	attrPod       = "csi.storage.k8s.io/pod.name"
	attrNamespace = "csi.storage.k8s.io/pod.namespace"
	attrPodUID    = "csi.storage.k8s.io/pod.uid"
	attrAccount   = "csi.storage.k8s.io/serviceAccount.name"
	attrEphemeral = "csi.storage.k8s.io/ephemeral"
	attrTokens    = "csi.storage.k8s.io/serviceAccount.tokens"
)

// request makes the request that the driver would send.
func (o *mount) request() (*v1alpha1.MountRequest, error) {
	class, err := o.readClass(o.class)
	if err != nil {
		return nil, err
	}
	tokens := map[string]serviceAccountToken{}
	token, claims, err := readToken(o.token)
	if err != nil {
		return nil, fmt.Errorf("--service-account-token: %w", err)
	}
	tokens[o.audience] = token
	if o.kubeToken != "" {
		if tokens[""], _, err = readToken(o.kubeToken); err != nil {
			return nil, fmt.Errorf("--kube-token: %w", err)
		}
	}
	namespace := cmp.Or(*o.kube.Namespace, class.Metadata.Namespace, claims.Kubernetes.Namespace)
	if err := o.checkNamespace(namespace, class, claims); err != nil {
		return nil, err
	}
	secrets, err := o.readSecrets(namespace)
	if err != nil {
		return nil, err
	}

	// Each overrides what comes before it; the kubelet's own come last, so that
	// no author of pods can set them.
	attributes := maps.Clone(class.Spec.Parameters)
	if attributes == nil {
		attributes = map[string]string{}
	}
	maps.Copy(attributes, o.attributes)
	attributes[attrClass] = class.Metadata.Name
	attributes[attrPod] = cmp.Or(o.pod, claims.Kubernetes.Pod.Name, "mount")
	attributes[attrNamespace] = namespace
	attributes[attrPodUID] = cmp.Or(o.podUID, claims.Kubernetes.Pod.UID, "00000000-0000-0000-0000-000000000000")
	attributes[attrAccount] = cmp.Or(o.account, claims.Kubernetes.ServiceAccount.Name, "default")
	attributes[attrEphemeral] = "true"
	tokensText, err := json.Marshal(tokens)
	if err != nil {
		return nil, err
	}
	attributes[attrTokens] = string(tokensText)
	attributesText, err := json.Marshal(attributes)
	if err != nil {
		return nil, err
	}
	secretsText, err := json.Marshal(secrets) // null without a Secret, as the driver has it
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

// checkNamespace reports what a cluster would not let happen.
func (o *mount) checkNamespace(namespace string, class secretProviderClass, claims tokenClaims) error {
	if namespace == "" {
		return usagef("no namespace: neither class nor token has one; name it with -n")
	}
	if problems := validation.IsDNS1123Label(namespace); len(problems) > 0 {
		return usagef("namespace %q: %s", namespace, problems[0])
	}
	if in := class.Metadata.Namespace; in != "" && in != namespace {
		return fmt.Errorf("the class is in namespace %s and the pod in %s: the driver looks for classes in the pod's namespace only", in, namespace)
	}
	if of := claims.Kubernetes.Namespace; of != "" && of != namespace {
		// Worth trying out: it is what an attacker would do.
		display.Fprintf(o.ErrOut, "note: the token is one of namespace %s, the pod is in %s: a kubelet would not send that\n", of, namespace)
	}
	return nil
}

// serviceAccountToken is a token as the kubelet hands it to the driver.
type serviceAccountToken struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expirationTimestamp"`
}

// tokenClaims is what a service-account token says of whom it stands for. They
// are not checked here: Vault does that.
type tokenClaims struct {
	Expires    int64 `json:"exp"`
	Kubernetes struct {
		Namespace string `json:"namespace"`
		Pod       struct {
			Name string `json:"name"`
			UID  string `json:"uid"`
		} `json:"pod"`
		ServiceAccount struct {
			Name string `json:"name"`
		} `json:"serviceaccount"`
	} `json:"kubernetes.io"`
}

// readToken reads a token from a file. A text that is no JWT is a token all the
// same, without claims: what to make of it is the provider's and Vault's part.
func readToken(file string) (serviceAccountToken, tokenClaims, error) {
	var claims tokenClaims
	text, err := os.ReadFile(file)
	if err != nil {
		return serviceAccountToken{}, claims, err
	}
	token := serviceAccountToken{Token: strings.TrimSpace(string(text))}
	if token.Token == "" {
		return token, claims, errors.New("the file " + file + " is empty")
	}
	token.Expires = time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	if payload, ok := jwtPayload(token.Token); ok && json.Unmarshal(payload, &claims) == nil && claims.Expires > 0 {
		token.Expires = time.Unix(claims.Expires, 0).UTC()
	}
	return token, claims, nil
}
