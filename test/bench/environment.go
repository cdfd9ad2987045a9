package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/transit"
)

const (
	// namespace is the namespace of the pods and the name of key, role and policy.
	namespace = "bench"
	// reader is the service account that may read the Secrets.
	reader = "reader"
)

// A volume is a ciphertext Secret and its contents.
type volume struct {
	secret     string
	entries    []string
	plaintext  map[string]string
	ciphertext map[string]string
}

// A pod mounts a volume. Pods that read the Secret from the API server exist there and share
// a service account that may read it. Every other pod has its own service account. Each pod
// has its own tokens.
type pod struct {
	name, uid string
	account   string
	vault     string // token of audience "vault"
	api       string // token of the API server; empty where the kubelet hands over the ciphertext
}

// environment has a real Vault and a real API server.
type environment struct {
	vault   *testenv.Vault
	api     *testenv.APIServer
	admin   *http.Client // of the API server
	issuer  *testenv.JWTIssuer
	volumes map[int]*volume // by the number of entries
	pods    atomic.Int64    // number of pods so far
}

func newEnvironment(ctx context.Context) (e *environment, err error) {
	e = &environment{volumes: map[int]*volume{}}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	start, startCtx := errgroup.WithContext(ctx)
	start.Go(func() (err error) {
		e.vault, err = testenv.StartVault(startCtx, testenv.VaultOptions{})
		return err
	})
	start.Go(func() (err error) {
		e.api, err = testenv.StartAPIServer(startCtx)
		return err
	})
	if err := start.Wait(); err != nil {
		return e, err
	}
	if e.admin, err = rest.HTTPClientFor(e.api.Config); err != nil {
		return e, err
	}
	if err := e.prepareVault(ctx); err != nil {
		return e, err
	}
	for _, n := range entryCounts {
		if e.volumes[n], err = e.encrypt(ctx, n); err != nil {
			return e, err
		}
	}
	return e, e.prepareAPI(ctx)
}

func (e *environment) close() {
	if e.vault != nil {
		e.vault.Stop()
	}
	if e.api != nil {
		e.api.Stop()
	}
}

// prepareVault creates a derived key and a role in which every service account of
// the namespace may decrypt with it.
func (e *environment) prepareVault(ctx context.Context) (err error) {
	if e.issuer, err = testenv.NewJWTIssuer(); err != nil {
		return err
	}
	if err := e.vault.TrustIssuer(ctx, "jwt", e.issuer); err != nil {
		return err
	}
	for _, write := range []struct {
		path string
		data map[string]any
	}{
		{"transit/keys/" + namespace, map[string]any{"derived": true}},
		{"sys/policies/acl/" + namespace, map[string]any{
			"policy": fmt.Sprintf(`path "transit/decrypt/%s" { capabilities = ["update"] }`, namespace),
		}},
		{"auth/jwt/role/" + namespace, map[string]any{
			"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault",
			"bound_claims_type": "glob",
			"bound_claims":      map[string]string{"sub": testenv.Subject(namespace, "*")},
			"token_policies":    []string{namespace}, "token_type": "batch", "token_ttl": "20m",
		}},
	} {
		if _, err := e.vault.Write(ctx, write.path, write.data); err != nil {
			return err
		}
	}
	return nil
}

// encrypt returns a Secret of n entries, with the size of a password or of a small file.
func (e *environment) encrypt(ctx context.Context, n int) (*volume, error) {
	v := &volume{secret: fmt.Sprintf("entries-%d", n), plaintext: map[string]string{}, ciphertext: map[string]string{}}
	client, err := transit.NewClient(transit.Config{Address: e.vault.Address})
	if err != nil {
		return nil, err
	}
	var items []transit.Item
	for i := range n {
		entry := fmt.Sprintf("entry-%02d", i)
		text := strings.Repeat(rand.Text(), 4) // 104 bytes
		v.entries = append(v.entries, entry)
		v.plaintext[entry] = text
		items = append(items,
			transit.Item{Data: []byte(text), Context: ciphertext.Strict.Context(namespace, v.secret, entry)})
	}
	session := client.Session("", transit.StaticToken(e.vault.RootToken))
	results, err := session.Encrypt(ctx, ciphertext.Key{Mount: "transit", Name: namespace}, items)
	if err != nil {
		return nil, err
	}
	for i, result := range results {
		if result.Err != nil {
			return nil, result.Err
		}
		v.ciphertext[v.entries[i]] = string(result.Data)
	}
	return v, nil
}

// prepareAPI creates the Secrets, and a service account that may read them.
func (e *environment) prepareAPI(ctx context.Context) error {
	meta := metav1.ObjectMeta{Name: reader}
	var names []string
	core, auth := "/api/v1/namespaces", "/apis/rbac.authorization.k8s.io/v1/namespaces/"+namespace
	errs := []error{
		e.post(ctx, core, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, nil),
		e.post(ctx, core+"/"+namespace+"/serviceaccounts", &corev1.ServiceAccount{ObjectMeta: meta}, nil),
	}
	for _, v := range e.volumes {
		names = append(names, v.secret)
		errs = append(errs, e.post(ctx, core+"/"+namespace+"/secrets", &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: v.secret, Labels: map[string]string{"secretmanager.io/transit-key": namespace}},
			Type:       "secretmanager.io/ciphertext",
			StringData: v.ciphertext,
		}, nil))
	}
	errs = append(errs,
		e.post(ctx, auth+"/roles", &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}, ResourceNames: names},
		}}, nil),
		e.post(ctx, auth+"/rolebindings", &rbacv1.RoleBinding{
			ObjectMeta: meta,
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: reader},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: reader}},
		}, nil))
	return errors.Join(errs...)
}

// newPods returns pods that the provider has not seen before.
func (e *environment) newPods(ctx context.Context, n int, asPod bool) ([]pod, error) {
	pods := make([]pod, n)
	made, ctx := errgroup.WithContext(ctx)
	made.SetLimit(8)
	for i := range pods {
		made.Go(func() (err error) {
			number := e.pods.Add(1)
			p := pod{name: fmt.Sprintf("app-%d", number), uid: fmt.Sprintf("00000000-0000-4000-8000-%012d", number)}
			p.account = p.name
			if asPod {
				p.account = reader
				p.uid, p.api, err = e.apiPod(ctx, p.name)
			}
			p.vault = e.issuer.PodToken(namespace, p.name, p.uid, p.account, "vault", time.Hour)
			pods[i] = p
			return err
		})
	}
	return pods, made.Wait()
}
