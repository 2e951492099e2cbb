"""moto with IAM enforced: a user who may use S3, DynamoDB and SQS, a role that may only read S3, and everybody else refused.

Usage: moto_iam.py PORT FILE; writes the user's keys to FILE once it enforces.
"""

import json
import os
import sys
import urllib.request

import boto3
from moto.server import ThreadedMotoServer

port, file = int(sys.argv[1]), sys.argv[2]
server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
server.start()
url = f"http://127.0.0.1:{port}"


def client(service):
    return boto3.client(service, endpoint_url=url, region_name="us-east-1", aws_access_key_id="root", aws_secret_access_key="root")


iam = client("iam")
iam.create_user(UserName="gateway")
statement = {"Effect": "Allow", "Action": ["s3:*", "dynamodb:*", "sqs:*", "sts:*"], "Resource": "*"}
policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
iam.put_user_policy(UserName="gateway", PolicyName="all", PolicyDocument=policy)
key = iam.create_access_key(UserName="gateway")["AccessKey"]
trust = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]})
iam.create_role(RoleName="reader", AssumeRolePolicyDocument=trust)
reading = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": "*"}]})
iam.put_role_policy(RoleName="reader", PolicyName="read", PolicyDocument=reading)
client("s3").create_bucket(Bucket="bucket")
client("s3").put_object(Bucket="bucket", Key="there", Body=b"in moto")
enforce = urllib.request.Request(f"{url}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"}, method="POST")
urllib.request.urlopen(enforce).read()
with open(file + ".part", "w") as out:
    json.dump({"id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}, out)
os.rename(file + ".part", file)
server._thread.join()
