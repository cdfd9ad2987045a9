package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"
)

// A call is one mount, or the same work of the floor. It checks the response.
type call func(context.Context) error

// driver simulates the driver with one connection to the provider's socket.
type driver struct {
	conn   *grpc.ClientConn
	client v1alpha1.CSIDriverProviderClient
}

// dial waits until the provider responds.
func dial(ctx context.Context, socket string) (*driver, error) {
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"))
	if err != nil {
		return nil, err
	}
	d := &driver{conn, v1alpha1.NewCSIDriverProviderClient(conn)}
	if _, err := d.client.Version(ctx, &v1alpha1.VersionRequest{}, grpc.WaitForReady(true)); err != nil {
		return nil, errors.Join(fmt.Errorf("the provider does not respond: %w", err), conn.Close())
	}
	return d, nil
}

// mount returns the mount of a volume by a pod, with the request prepared.
func (d *driver) mount(v *volume, p pod) (call, error) {
	tokens := map[string]any{"vault": map[string]string{"token": p.vault}}
	secrets := v.ciphertext
	if p.api != "" {
		tokens[""] = map[string]string{"token": p.api}
		secrets = nil // the driver sends "null"
	}
	text := func(v any, err *error) string {
		b, e := json.Marshal(v)
		*err = errors.Join(*err, e)
		return string(b)
	}
	var err error
	request := &v1alpha1.MountRequest{
		Attributes: text(map[string]string{
			"roleName": namespace, "secretName": v.secret, "transitKey": namespace,
			"secretProviderClass":                      v.secret,
			"csi.storage.k8s.io/pod.name":              p.name,
			"csi.storage.k8s.io/pod.namespace":         namespace,
			"csi.storage.k8s.io/pod.uid":               p.uid,
			"csi.storage.k8s.io/serviceAccount.name":   p.account,
			"csi.storage.k8s.io/ephemeral":             "true",
			"csi.storage.k8s.io/serviceAccount.tokens": text(tokens, &err),
		}, &err),
		Secrets:    text(secrets, &err),
		TargetPath: "/var/lib/kubelet/pods/" + p.uid + "/volumes/kubernetes.io~csi/secrets/mount",
		Permission: "420",
	}
	return func(ctx context.Context) error {
		response, err := d.client.Mount(ctx, request)
		if err != nil {
			return err
		}
		return v.checkResponse(response)
	}, err
}

func (v *volume) checkResponse(response *v1alpha1.MountResponse) error {
	got := make(map[string]string, len(response.GetFiles()))
	for _, file := range response.GetFiles() {
		got[file.GetPath()] = string(file.GetContents())
	}
	if len(response.GetObjectVersion()) != len(v.entries) {
		return fmt.Errorf("the provider returned %d object versions for %d entries", len(response.GetObjectVersion()),
			len(v.entries))
	}
	return v.check(got)
}

// check compares entries with the plaintext.
func (v *volume) check(got map[string]string) error {
	if !maps.Equal(got, v.plaintext) {
		return fmt.Errorf("the plaintext of %s (%d entries) differs from the encrypted one (%d)", v.secret,
			len(got), len(v.plaintext))
	}
	return nil
}
